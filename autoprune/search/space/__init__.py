"""Search spaces: the parameters of a trial, and plans made from them."""
