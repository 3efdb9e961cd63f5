//! What a device has been asked to do.

/// What a backend on a device has done since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Statistics {
    /// Kernels sent to the device.
    pub dispatches: u64,
    /// Copies within the device: each ends what runs side by side, as a kernel alone does not.
    pub copies: u64,
    /// Bytes that kernels and copies read and write: each word once a dispatch, keys and twiddles included, what caches hold left out.
    pub traffic_bytes: u64,
    /// Bytes of residues and coefficients sent to the device, keys apart.
    pub uploaded_bytes: u64,
    /// Bytes of keys sent to the device.
    pub key_bytes: u64,
    /// Keys that had to leave the device for others.
    pub key_evictions: u64,
    /// Bytes of residues read back.
    pub downloaded_bytes: u64,
    /// Buffers made (recycled ones are not made again).
    pub allocations: u64,
    /// Bytes of residues and keys held now, free buffers included.
    pub bytes: u64,
    /// The most of them there ever were.
    pub peak_bytes: u64,
}

impl std::ops::Sub for Statistics {
    type Output = Self;
    /// What was done in between. `bytes` and `peak_bytes` are those of the later one.
    fn sub(self, before: Self) -> Self {
        Self {
            dispatches: self.dispatches - before.dispatches,
            copies: self.copies - before.copies,
            traffic_bytes: self.traffic_bytes - before.traffic_bytes,
            uploaded_bytes: self.uploaded_bytes - before.uploaded_bytes,
            key_bytes: self.key_bytes - before.key_bytes,
            key_evictions: self.key_evictions - before.key_evictions,
            downloaded_bytes: self.downloaded_bytes - before.downloaded_bytes,
            allocations: self.allocations - before.allocations,
            ..self
        }
    }
}

/// Where the words of a backend's buffers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In host memory.
    Host,
    /// On a device: calls may fail where a processor's would not, and a fault takes the words with it.
    Device,
    /// Nowhere: calls are counted, and results have shapes and no words.
    Nowhere,
}
