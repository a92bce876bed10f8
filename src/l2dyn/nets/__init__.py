"""The nets as torch modules, the fully-connected ones also as stacks, and what is measured on them."""
