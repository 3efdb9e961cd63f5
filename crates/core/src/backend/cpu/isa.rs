//! Which instruction set the kernels use: found once, overridable.

use super::super::{BackendError, Result};
use std::ffi::OsStr;

/// Instruction sets that kernels are written for, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "elsewhere there are plain integers alone"))]
pub(super) enum Level {
    /// Plain integers.
    Scalar,
    /// AVX2, 8 lanes.
    Avx2,
    /// AVX-512 F, BW, DQ, VL, 16 lanes.
    Avx512,
}

/// An instruction set that this CPU has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Isa(Level);

impl Isa {
    /// The variable that overrides the choice: `scalar`, `avx2` or `avx512`.
    pub const VARIABLE: &'static str = "CIPHERLENS_CPU";
    /// Plain integers, on any CPU.
    pub const SCALAR: Self = Self(Level::Scalar);

    /// All that this CPU has, weakest first.
    pub fn available() -> Vec<Self> {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2");
            let avx512 = avx2
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            let levels = [(Level::Scalar, true), (Level::Avx2, avx2), (Level::Avx512, avx512)];
            levels.into_iter().filter(|&(_, have)| have).map(|(level, _)| Self(level)).collect()
        }
        #[cfg(not(target_arch = "x86_64"))]
        vec![Self::SCALAR]
    }

    /// The best one, or the one named by [`Self::VARIABLE`].
    ///
    /// # Errors
    /// [`BackendError::Isa`] where the variable names a set that there is not, or that this CPU lacks.
    pub fn detect() -> Result<Self> {
        Self::asked(std::env::var_os(Self::VARIABLE).as_deref())
    }

    /// What a value of the variable asks for. Any that is there and not a name is refused, whether it is text or not.
    fn asked(value: Option<&OsStr>) -> Result<Self> {
        match value {
            Some(name) if !name.is_empty() => Self::by_name(&name.to_string_lossy()),
            _ => Ok(Self::available().pop().unwrap_or(Self::SCALAR)),
        }
    }

    /// By name, if this CPU has it.
    ///
    /// # Errors
    /// [`BackendError::Isa`] for a name that is not one, or of a set that this CPU lacks.
    pub fn by_name(name: &str) -> Result<Self> {
        let available = Self::available();
        let have = || available.iter().map(|isa| isa.short_name()).collect::<Vec<_>>().join(", ");
        available.iter().copied().find(|isa| isa.short_name() == name).ok_or_else(|| BackendError::Isa {
            asked: name.to_owned(),
            have: have(),
            variable: Self::VARIABLE,
        })
    }

    /// The level.
    pub(super) const fn level(self) -> Level {
        self.0
    }
    /// `scalar`, `avx2` or `avx512`.
    pub const fn short_name(self) -> &'static str {
        match self.0 {
            Level::Scalar => "scalar",
            Level::Avx2 => "avx2",
            Level::Avx512 => "avx512",
        }
    }
    /// The name of a backend that uses it.
    pub const fn backend_name(self) -> &'static str {
        match self.0 {
            Level::Scalar => "cpu-scalar",
            Level::Avx2 => "cpu-avx2",
            Level::Avx512 => "cpu-avx512",
        }
    }
    /// log2 of the lanes.
    pub const fn log_width(self) -> u32 {
        match self.0 {
            Level::Scalar => 0,
            Level::Avx2 => 3,
            Level::Avx512 => 4,
        }
    }
    /// The widest set for which a limb of this degree is long enough for the transform (two vectors).
    pub(super) fn for_degree(self, degree: usize) -> Self {
        match self.0 {
            Level::Avx512 if degree < 32 => Self(Level::Avx2),
            _ => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_had_or_refused() {
        let best = Isa::available().pop();
        assert_eq!(Isa::asked(None).ok(), best);
        assert_eq!(Isa::asked(Some(OsStr::new(""))).ok(), best);
        assert_eq!(Isa::asked(Some(OsStr::new("scalar"))).ok(), Some(Isa::SCALAR));
        let refused = |value: &OsStr| match Isa::asked(Some(value)) {
            Err(BackendError::Isa { asked, variable, .. }) => assert!(!asked.is_empty() && variable == Isa::VARIABLE),
            other => panic!("{value:?}: {other:?}"),
        };
        refused(OsStr::new("sse9"));
        #[cfg(unix)]
        {
            use std::os::unix::ffi::OsStrExt;
            refused(OsStr::from_bytes(b"\xff"));
            refused(OsStr::from_bytes(b"scalar\xff"));
        }
    }
}
