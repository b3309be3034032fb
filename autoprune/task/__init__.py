"""What the user brings: model, example inputs, data, loss, metrics, device."""
