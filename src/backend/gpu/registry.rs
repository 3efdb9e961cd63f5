//! Every kernel of the device: one row wires its shader text, entry point, bindings, workgroup size and CPU twin (the function of the same arithmetic).
//!
//! A row is the one place where these are said: pipelines are made from it, and a test holds it against what the shader
//! itself declares, in both forms of the wide product.

/// How a binding is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read only.
    Read,
    /// Written (and perhaps read).
    Write,
}

/// How 64-bit products are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wide {
    /// With 64-bit integers in registers, where the adapter has them and passes the self-test.
    U64,
    /// In 32-bit integers, exactly.
    U32,
}

impl Wide {
    /// Both forms.
    pub const ALL: [Self; 2] = [Self::U64, Self::U32];

    /// The text that defines the products.
    const fn source(self) -> &'static str {
        match self {
            Self::U64 => include_str!("../../../shaders/shared/wide_u64.wgsl"),
            Self::U32 => include_str!("../../../shaders/shared/wide_u32.wgsl"),
        }
    }
}

/// A shader file: `shaders/NAME.wgsl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shader {
    /// Its name.
    pub name: &'static str,
    /// Its text without the shared part.
    text: &'static str,
}

impl Shader {
    /// The whole text: products, modular arithmetic, kernels.
    pub fn source(&self, wide: Wide) -> String {
        [wide.source(), include_str!("../../../shaders/shared/modular.wgsl"), self.text].join("\n")
    }
}

/// One row.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// The entry point of the shader.
    pub name: &'static str,
    /// The file it stands in.
    pub shader: Shader,
    /// Bindings of group 0 in the order in which buffers are given; 0 is the arguments of every kernel.
    pub bindings: &'static [(u32, Access)],
    /// Threads of a workgroup.
    pub workgroup: u32,
    /// Below `src/`, the file of the same arithmetic on the CPU, and the function.
    pub twin: &'static str,
}

/// The shared memory a portable workgroup may use, in bytes.
pub const WORKGROUP_BYTES: u32 = 16 << 10;
/// The storage buffers a portable kernel may bind.
pub const STORAGE_BUFFERS: u32 = 8;
/// The storage buffers of kernels that read several keys, which portable ones stand in for where there are fewer.
pub const MANY_STORAGE_BUFFERS: u32 = 15;
/// Threads of every workgroup.
pub const THREADS: u32 = 256;
/// log2 of the words of a transform's largest tile: 16 KiB of workgroup memory.
pub const LOG_TILE: u32 = 12;
/// Target limbs that a thread of a base conversion makes.
pub const BLOCK: u32 = 8;
/// Ciphertexts that one sum with constants reads.
pub const PARTS: u32 = 5;
/// Pairs of ciphertexts that one sum of products reads.
pub const PAIRS: u32 = 2;
/// Ciphertexts that one dispatch of several sums reads.
pub const OPERANDS: u32 = 12;
/// Keys that one product of several rotations reads.
pub const KEYS: u32 = 8;
/// Sums of products with plaintexts that one product of rotations makes.
pub const PRODUCTS: u32 = 8;
/// What shaders and hosts both count by, as the shaders call it.
pub const SIZES: &[(&str, u32)] = &[
    ("THREADS", THREADS),
    ("TILE", 1 << LOG_TILE),
    ("BLOCK", BLOCK),
    ("PARTS", PARTS),
    ("PAIRS", PAIRS),
    ("OPERANDS", OPERANDS),
    ("KEYS", KEYS),
    ("PRODUCTS", PRODUCTS),
];

const ARGUMENTS: (u32, Access) = (0, Access::Read);

macro_rules! shaders {
    ($($constant:ident = $file:literal),* $(,)?) => {
        $( const $constant: Shader =
            Shader { name: $file, text: include_str!(concat!("../../../shaders/", $file, ".wgsl")) }; )*
        /// Every shader file.
        pub const SHADERS: &[Shader] = &[$($constant),*];
    };
}
shaders! {
    ELEMENTWISE = "elementwise", NTT = "ntt", AUTOMORPHISM = "automorphism", BASE_CONVERT = "base_convert",
    INNER_PRODUCT = "inner_product", RESIDUES = "residues", SUMS = "sums",
}

macro_rules! kernels {
    ($($(#[$doc:meta])* $kernel:ident = $shader:ident $name:literal [$($binding:tt)*] $twin:literal;)*) => {
        /// The kernels.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Kernel {
            $( $(#[$doc])* $kernel, )*
        }
        impl Kernel {
            /// All of them, in the order of their rows.
            pub const ALL: &'static [Self] = &[$(Self::$kernel),*];
            const ROWS: &'static [Row] = &[$( Row {
                name: $name,
                shader: $shader,
                bindings: &[ARGUMENTS, $(kernels!(@ $binding)),*],
                workgroup: THREADS,
                twin: $twin,
            } ),*];
        }
    };
    (@ ($number:literal r)) => { ($number, Access::Read) };
    (@ ($number:literal w)) => { ($number, Access::Write) };
}
kernels! {
    /// `a + b`.
    Add = ELEMENTWISE "add" [(1 r) (2 r) (3 r) (4 w)] "backend/cpu/elementwise.rs add";
    /// `a += b` on selected polynomials.
    AddAssign = ELEMENTWISE "add_assign" [(1 r) (3 r) (4 w)] "backend/cpu/elementwise.rs add";
    /// `a - b`.
    Sub = ELEMENTWISE "sub" [(1 r) (2 r) (3 r) (4 w)] "backend/cpu/elementwise.rs sub";
    /// `-a`.
    Negate = ELEMENTWISE "negate" [(1 r) (2 r) (4 w)] "backend/cpu/elementwise.rs negate";
    /// `a += c` on selected polynomials.
    AddConstantAssign = ELEMENTWISE "add_constant_assign" [(1 r) (4 w)] "backend/cpu/elementwise.rs add_constant";
    /// `a c`.
    MulConstant = ELEMENTWISE "mul_constant" [(1 r) (2 r) (4 w)] "backend/cpu/elementwise.rs mul_constant";
    /// `a b 2^-32`.
    MulPlain = ELEMENTWISE "mul_plain" [(1 r) (2 r) (3 r) (4 w)] "backend/cpu/elementwise.rs mul_plain";
    /// Sums of ciphertexts times constants.
    LinearCombination = SUMS "linear_combination" [(1 r) (2 r) (3 r) (4 r) (5 r) (6 r) (7 w)]
        "backend/cpu/inner_product.rs plain_inner_product";
    /// Sums of products of ciphertexts.
    TensorSum = SUMS "tensor_sum" [(1 r) (2 r) (3 r) (4 r) (5 r) (7 w)] "backend/cpu/elementwise.rs tensor";
    /// Several sums of the same ciphertexts times constants; where so many buffers can be bound.
    LinearCombinations = SUMS "linear_combinations"
        [(1 r) (2 r) (3 r) (4 r) (5 r) (6 r) (7 w) (8 r) (9 r) (10 r) (11 r) (12 r) (13 r) (14 r)]
        "backend/cpu/inner_product.rs plain_inner_product";
    /// Several sums of products of ciphertexts; where so many buffers can be bound.
    TensorSums = SUMS "tensor_sums" [(1 r) (2 r) (3 r) (4 r) (5 r) (6 r) (7 w) (8 r) (9 r) (10 r) (11 r) (12 r) (13 r) (14 r)]
        "backend/cpu/elementwise.rs tensor";
    /// A division where nothing is dropped.
    MultiplyKept = ELEMENTWISE "multiply_kept" [(1 r) (2 r) (4 w)] "backend/cpu/change_basis.rs multiply_kept";
    /// Up to twelve stages of the forward transform.
    Forward = NTT "forward" [(1 r) (2 r) (3 r) (4 w)] "backend/cpu/ntt.rs forward";
    /// Up to twelve stages of the inverse transform.
    Inverse = NTT "inverse" [(1 r) (2 r) (3 r) (4 w)] "backend/cpu/ntt.rs inverse";
    /// The last stages of a forward transform and the tail of a division with rounding.
    ForwardDivide = NTT "forward_divide" [(1 r) (2 r) (3 r) (4 w) (5 r) (6 r)] "backend/cpu/elementwise.rs divide_tail";
    /// X -> X^g; with g = 1, copies of limbs.
    Permute = AUTOMORPHISM "permute" [(2 r) (3 w)] "backend/cpu/automorphism.rs permute";
    /// Base conversion.
    Convert = BASE_CONVERT "convert" [(2 r) (3 w)] "backend/cpu/base_convert.rs convert";
    /// Base conversion of what a division drops, taken from what it keeps, and scaled for the next conversion.
    ConvertDivide = BASE_CONVERT "convert_divide" [(2 r) (3 w) (4 w)] "backend/cpu/elementwise.rs divide_tail";
    /// Digits times a key.
    KeyInnerProduct = INNER_PRODUCT "key_inner_product" [(1 r) (2 r) (3 r) (4 w) (5 r) (6 r) (7 r)]
        "backend/cpu/inner_product.rs key_inner_product";
    /// The same for several rotations; where so many buffers can be bound.
    KeyInnerProducts = INNER_PRODUCT "key_inner_products"
        [(1 r) (2 r) (3 r) (4 w) (5 r) (6 r) (7 r) (8 r) (9 r) (10 r) (11 r) (12 r) (13 r) (14 r)]
        "backend/cpu/inner_product.rs key_inner_product";
    /// Plaintexts times rotations that are not written; where so many buffers can be bound.
    RotatedInnerProduct = INNER_PRODUCT "rotated_inner_product"
        [(1 r) (2 r) (3 r) (4 w) (6 r) (7 r) (8 r) (9 r) (10 r) (11 r) (12 r) (13 r) (14 r)]
        "backend/cpu/rotated_inner_product.rs rotated_inner_product_words";
    /// Ciphertexts times plaintexts.
    PlainInnerProduct = INNER_PRODUCT "plain_inner_product" [(1 r) (2 r) (3 r) (4 w)]
        "backend/cpu/inner_product.rs plain_inner_product";
    /// Integers to residues.
    Reduce = RESIDUES "reduce" [(1 r) (2 r) (3 w)] "ckks/encoder/residues.rs reduce";
}

impl Kernel {
    /// Its row.
    pub fn row(self) -> &'static Row {
        &Self::ROWS[self as usize]
    }
    /// The storage buffers that it binds.
    pub fn storage_buffers(self) -> u32 {
        self.row().bindings.len() as u32
    }
}
