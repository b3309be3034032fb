"""Parts of a model that can be dropped whole: residual blocks, branches and layers."""
