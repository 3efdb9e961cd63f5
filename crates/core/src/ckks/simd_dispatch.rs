//! Run-time choice of the instruction set for loops that the compiler vectorises.

/// Defines `fn $name(args)` that runs the inline function `$body::<FMA>` compiled for the widest instruction set the
/// machine has. All versions give the same bits: the bodies contract no multiplication with an addition by themselves,
/// and use fused operations only where both forms are exact.
macro_rules! simd_dispatch {
    ($(#[$doc:meta])* $vis:vis fn $name:ident = $body:ident($($arg:ident: $ty:ty),* $(,)?)) => {
        $(#[$doc])*
        $vis fn $name($($arg: $ty),*) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx2,fma")]
                fn wide($($arg: $ty),*) {
                    $body::<true>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn middle($($arg: $ty),*) {
                    $body::<true>($($arg),*)
                }
                let fma = std::arch::is_x86_feature_detected!("fma") && std::arch::is_x86_feature_detected!("avx2");
                if fma
                    && std::arch::is_x86_feature_detected!("avx512f")
                    && std::arch::is_x86_feature_detected!("avx512dq")
                    && std::arch::is_x86_feature_detected!("avx512vl")
                {
                    // SAFETY: the features the function is compiled for were just detected.
                    return unsafe { wide($($arg),*) };
                }
                if fma {
                    // SAFETY: as above.
                    return unsafe { middle($($arg),*) };
                }
            }
            $body::<{ cfg!(target_arch = "aarch64") }>($($arg),*)
        }
    };
}
pub(super) use simd_dispatch;
