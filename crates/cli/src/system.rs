//! What is known about the machine. Every fact may be missing on a system that does not tell.

use std::fs;

/// Peak resident set of this process in bytes.
pub(crate) fn peak_rss_bytes() -> Option<u64> {
    kib_field(&fs::read_to_string("/proc/self/status").ok()?, "VmHWM:")
}

/// Processor time of this process so far, all threads, in seconds (in steps of 10 ms).
pub(crate) fn cpu_seconds() -> Option<f64> {
    let text = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the name in brackets, which may hold anything; user and system time are the 12th and 13th after it.
    let mut fields = text[text.rfind(')')? + 1..].split_whitespace().skip(11);
    let ticks: f64 = fields.next()?.parse::<f64>().ok()? + fields.next()?.parse::<f64>().ok()?;
    Some(ticks / 100.0)
}

/// Total and available memory in bytes.
pub(crate) fn memory_bytes() -> (Option<u64>, Option<u64>) {
    match fs::read_to_string("/proc/meminfo") {
        Ok(text) => (kib_field(&text, "MemTotal:"), kib_field(&text, "MemAvailable:")),
        Err(_) => (None, None),
    }
}

/// The memory limit of the control group this process is in, in bytes.
pub(crate) fn memory_limit_bytes() -> Option<u64> {
    ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .iter()
        .find_map(|path| fs::read_to_string(path).ok()?.trim().parse().ok())
        .filter(|&limit: &u64| limit < 1 << 50)
}

/// Memory that this process may ever have, in bytes.
pub(crate) fn memory_in_all() -> Option<u64> {
    memory_bytes().0.into_iter().chain(memory_limit_bytes()).min()
}

/// The processor's own name.
pub(crate) fn cpu_name() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|l| l.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_string())
}

/// Processors this process may use at once.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

/// The instruction sets that matter here, and whether each is present.
pub(crate) fn cpu_features() -> Vec<(&'static str, bool)> {
    #[cfg(target_arch = "x86_64")]
    {
        vec![
            ("avx2", is_x86_feature_detected!("avx2")),
            ("avx512f", is_x86_feature_detected!("avx512f")),
            ("avx512dq", is_x86_feature_detected!("avx512dq")),
            ("avx512vl", is_x86_feature_detected!("avx512vl")),
            ("avx512ifma", is_x86_feature_detected!("avx512ifma")),
        ]
    }
    #[cfg(target_arch = "aarch64")]
    {
        vec![("neon", std::arch::is_aarch64_feature_detected!("neon"))]
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        Vec::new()
    }
}

/// `Name:   123 kB` -> bytes.
fn kib_field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|l| l.starts_with(name))?;
    let kib: u64 = line[name.len()..].trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_in_kib() {
        let text = "VmPeak:\t  10 kB\nVmHWM:\t    2512 kB\nbad: x";
        assert_eq!(kib_field(text, "VmHWM:"), Some(2512 * 1024));
        assert_eq!(kib_field(text, "VmRSS:"), None);
        assert_eq!(kib_field(text, "bad:"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn linux_tells_its_memory() {
        assert!(peak_rss_bytes().unwrap() > 0);
        assert!(cpu_seconds().unwrap() >= 0.0);
        assert!(memory_bytes().0.unwrap() > 0);
    }
}
