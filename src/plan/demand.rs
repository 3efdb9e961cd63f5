//! What a run asks of a device.

use crate::backend::Statistics;

/// What one layer asks of the device.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct LayerDemand {
    /// The layer.
    pub layer: String,
    /// What is done for it; `peak_bytes` is the most held since the run began.
    #[serde(flatten)]
    pub statistics: Statistics,
}

/// What a run asks of the device.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct DeviceDemand {
    /// All of it: upload of the input and download of the answer included.
    pub total: Statistics,
    /// Layer by layer.
    pub layers: Vec<LayerDemand>,
}
