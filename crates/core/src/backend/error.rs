//! What can go wrong in a backend.

#[cfg(doc)]
use super::Mirror;

/// Everything that can go wrong in a backend.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// Shapes or bases that do not fit together.
    #[error("{op}: expected {expected}, found {found}")]
    Shape {
        /// The kernel.
        op: &'static str,
        /// What it needs.
        expected: String,
        /// What it got.
        found: String,
    },
    /// A buffer that another backend owns.
    #[error("{op}: the buffer belongs to another backend than `{backend}`; download it there and upload it here")]
    ForeignBuffer {
        /// The kernel.
        op: &'static str,
        /// The backend asked.
        backend: &'static str,
    },
    /// A request that memory cannot hold.
    #[error("cannot allocate {bytes} bytes for {op}; lower the batch or use a smaller preset")]
    OutOfMemory {
        /// The operation.
        op: &'static str,
        /// The size asked for.
        bytes: usize,
    },
    /// A Galois element that is not an odd number below 2N.
    #[error("{galois} is not a Galois element of degree {degree}: it must be odd and below 2N")]
    Galois {
        /// The element refused.
        galois: u32,
        /// The ring degree.
        degree: usize,
    },
    /// An instruction set the CPU lacks or a name that is not one.
    #[error("CPU kernels `{asked}` are not available here (have: {have}); set {variable} to one of these or leave it out")]
    Isa {
        /// The request.
        asked: String,
        /// What there is.
        have: String,
        /// The variable it was read from.
        variable: &'static str,
    },
    /// A GPU that would take longer than the processor.
    #[error("the GPU `{adapter}` would take {gpu:.1} s, the processor {cpu:.1} s; --backend gpu takes it all the same")]
    SlowerGpu {
        /// The adapter.
        adapter: String,
        /// Seconds by what was measured of it.
        gpu: f64,
        /// Seconds of the plan on the processor.
        cpu: f64,
    },
    /// No GPU that may be used.
    #[error("no GPU can be used{}", no_adapter(asked.as_deref(), found))]
    NoAdapter {
        /// The name that was asked for.
        asked: Option<String>,
        /// The adapters there are.
        found: String,
    },
    /// A GPU asked of a library that was built without.
    #[error("no GPU can be used: this program was built without GPU support (Cargo feature `gpu`)")]
    NoGpuSupport,
    /// A choice of backend that there is not.
    #[error("there is no backend `{asked}`; there are {}", have.join(", "))]
    NoSuchChoice {
        /// The request.
        asked: String,
        /// What can be asked for.
        have: &'static [&'static str],
    },
    /// A name that no call has, of those to compare ([`Mirror`]).
    #[error("a backend has no call `{asked}` to compare; there are all, {}", have.join(", "))]
    NoSuchCall {
        /// The request.
        asked: String,
        /// The names that calls have.
        have: &'static [&'static str],
    },
    /// A GPU that computes something else than the CPU.
    #[error("the GPU {adapter} failed the self-test of {test}; use the CPU")]
    SelfTest {
        /// The adapter.
        adapter: String,
        /// What it got wrong.
        test: &'static str,
    },
    /// Two backends that do not agree ([`Mirror`]).
    #[error(
        "{op}, call {call}: `{backend}` gives {found} instead of {expected} in coefficient {coefficient} of limb {limb} of polynomial {poly}"
    )]
    Divergence {
        /// The call.
        op: &'static str,
        /// The backend that is not the reference.
        backend: &'static str,
        /// How many calls came before it.
        call: u64,
        /// The polynomial.
        poly: usize,
        /// The limb.
        limb: usize,
        /// The coefficient, or the place in NTT order.
        coefficient: usize,
        /// What the reference gives.
        expected: u32,
        /// What the other gives.
        found: u32,
    },
    /// A GPU that failed outside any one call: lost, or refusing what it is asked.
    #[error("{op}: the GPU failed: {reason}; nothing computed on it since can be used")]
    Device {
        /// The operation.
        op: &'static str,
        /// What the driver says.
        reason: String,
    },
}

fn no_adapter(asked: Option<&str>, found: &str) -> String {
    match asked {
        Some(name) => format!(": no adapter has `{name}` in its name (adapters: {found})"),
        None => format!(" (adapters: {found}); software adapters are taken only when asked for by name"),
    }
}

/// Result of a backend call.
pub type Result<T> = std::result::Result<T, BackendError>;
