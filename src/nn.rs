//! Networks: models, tensors, layouts and their lowering to programs.
