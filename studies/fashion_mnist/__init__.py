"""The Fashion-MNIST study."""
