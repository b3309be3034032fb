"""The user's input: model, example inputs, data, loss, metrics, device."""
