"""From kept channels to a smaller model: cut, or the same parts silenced: mask."""
