//! The arguments of kernels: the structs that the shaders declare, name by name (`tests/gpu_shaders.rs` holds one against the other).
//! What a field means, and its unit, stands in the shader.

use bytemuck::{Pod, Zeroable};

macro_rules! arguments {
    ($($(#[$doc:meta])* $name:ident { $($field:ident),* $(,)? })*) => {
        $(
            $(#[$doc])*
            #[repr(C)]
            #[derive(Debug, Clone, Copy, Default, Pod, Zeroable)]
            pub(super) struct $name { $(pub $field: u32),* }
        )*
        /// Every struct and its fields, of 32 bits each: those of calls are followed by an array of rows in the shader.
        pub const STRUCTS: &[(&str, &[&str])] = &[$((stringify!($name), &[$(stringify!($field)),*])),*];
    };
}
arguments! {
    /// elementwise.wgsl
    Elementwise { degree, limb_count, output, output_stride, b_polys, first, a, a_limbs }
    /// elementwise.wgsl
    ElementwiseLimb { prime, constant, constant_shoup, a_limb }
    /// ntt.wgsl
    Transform {
        source, source_stride, output_stride, output, kept_first, kept_stride, rotation_polys, first, added, added_stride,
        constant_polys, limb_count,
    }
    /// ntt.wgsl
    TransformRow {
        source, output, prime, kept, x, x_shoup, y, y_shoup, product, factor_0, factor_1, factor_2, factor_3, factor_4, factor_5,
        reciprocal_0, reciprocal_1, reciprocal_2, reciprocal_3, reciprocal_4, reciprocal_5, galois_inverse, constant,
    }
    /// automorphism.wgsl
    Permute { degree, log_degree, galois, source, source_stride, output_stride }
    /// automorphism.wgsl
    PermuteLimb { source, output }
    /// base_convert.wgsl
    Convert { degree, source_stride, output_stride, next_stride }
    /// inner_product.wgsl
    KeyProduct {
        log_degree, limb_count, key_limbs, first_digit, end_digit, digits, adds, bound_digit, operand, reads_own, own, own_stride,
        output, added, added_stride, added_second, plus, plus_stride, plus_second, rotations, sums, operand_rotation, own_rotation,
        added_rotation, output_rotation, shards, products, log_repeat,
    }
    /// inner_product.wgsl
    KeyProductRow { prime, key_limb, owner, own_limb, added_limb, added_factor, key_digit, galois, plaintext }
    /// inner_product.wgsl
    PlainProduct { degree, limb_count, adds, log_repeat }
    /// inner_product.wgsl
    PlainProductRow { prime, first_term, terms, plaintext, shard }
    /// sums.wgsl
    Summation { degree, limb_count, terms, adds, output, sums, sum_stride }
    /// sums.wgsl
    SummationRow { prime, factor, factor_shoup, first, second, ends }
    /// residues.wgsl
    Reduce { degree, limb_count, stored }
    /// residues.wgsl
    ReduceLimb { prime, low, high }
}

/// A call's arguments as the device reads them: its struct, then its rows.
pub(super) fn words<Call: Pod, Row: Pod>(call: &Call, rows: &[Row]) -> Vec<u32> {
    let mut words = bytemuck::pod_collect_to_vec(std::slice::from_ref(call));
    words.extend(bytemuck::cast_slice::<Row, u32>(rows));
    words
}

/// The row of this number, made if there are fewer: for columns of different lengths.
pub(super) fn row<Row: Default + Clone>(rows: &mut Vec<Row>, number: usize) -> &mut Row {
    if rows.len() <= number {
        rows.resize(number + 1, Row::default());
    }
    &mut rows[number]
}
