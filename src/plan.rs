//! Plans: programs over sharded values, their levels, keys, counts and execution.

pub mod program;
