//! How long each kernel takes on the device, by timestamps.

use super::registry::Kernel;
use std::sync::{Mutex, PoisonError};

/// Kernels of one submission at most.
pub(super) const MOST: u32 = 64;

/// The time of one kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Timing {
    /// The kernel.
    pub kernel: &'static str,
    /// How often it ran.
    pub dispatches: u64,
    /// Nanoseconds on the device, all together.
    pub nanoseconds: u64,
}

/// Timestamps before and after every kernel of a submission, and what they added up to.
#[derive(Debug)]
pub(super) struct Profile {
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    staging: wgpu::Buffer,
    /// Nanoseconds of one tick.
    period: f64,
    /// By kernel: dispatches and ticks.
    sums: Mutex<Vec<(u64, u64)>>,
}

impl Profile {
    /// For a device that has timestamps.
    pub(super) fn new(device: &wgpu::Device, queue: &wgpu::Queue) -> Self {
        let buffer = |usage| {
            let size = 16 * u64::from(MOST);
            device.create_buffer(&wgpu::BufferDescriptor { label: Some("timestamps"), size, usage, mapped_at_creation: false })
        };
        let queries = wgpu::QuerySetDescriptor { label: Some("timestamps"), ty: wgpu::QueryType::Timestamp, count: 2 * MOST };
        Self {
            queries: device.create_query_set(&queries),
            resolved: buffer(wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC),
            staging: buffer(wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST),
            period: f64::from(queue.get_timestamp_period()),
            sums: Mutex::new(vec![(0, 0); Kernel::ALL.len()]),
        }
    }

    /// Timestamps of the `index`-th kernel of a submission.
    pub(super) fn writes(&self, index: usize) -> wgpu::ComputePassTimestampWrites<'_> {
        wgpu::ComputePassTimestampWrites {
            query_set: &self.queries,
            beginning_of_pass_write_index: Some(2 * index as u32),
            end_of_pass_write_index: Some(2 * index as u32 + 1),
        }
    }

    /// Ends the commands of a submission of `count` kernels.
    pub(super) fn resolve(&self, encoder: &mut wgpu::CommandEncoder, count: usize) {
        let queries = 2 * count as u32;
        encoder.resolve_query_set(&self.queries, 0..queries, &self.resolved, 0);
        encoder.copy_buffer_to_buffer(&self.resolved, 0, &self.staging, 0, 8 * u64::from(queries));
    }

    /// Waits for a submission and adds its times up. A device that fails says so elsewhere; its times are left out.
    pub(super) fn collect(&self, device: &wgpu::Device, kernels: &[Kernel]) {
        self.staging.map_async(wgpu::MapMode::Read, .., |_| {});
        if device.poll(wgpu::PollType::wait_indefinitely()).is_ok()
            && let Ok(range) = self.staging.get_mapped_range(..)
        {
            let ticks: &[u64] = bytemuck::cast_slice(&range);
            let mut sums = self.sums.lock().unwrap_or_else(PoisonError::into_inner);
            for (&kernel, pair) in kernels.iter().zip(ticks.as_chunks::<2>().0) {
                sums[kernel as usize].0 += 1;
                sums[kernel as usize].1 += pair[1].saturating_sub(pair[0]);
            }
        }
        self.staging.unmap();
    }

    /// Kernels that ran, slowest first.
    pub(super) fn timings(&self) -> Vec<Timing> {
        let sums = self.sums.lock().unwrap_or_else(PoisonError::into_inner);
        let timing = |(&kernel, &(dispatches, ticks)): (&Kernel, &(u64, u64))| Timing {
            kernel: kernel.row().name,
            dispatches,
            nanoseconds: (ticks as f64 * self.period) as u64,
        };
        let mut all: Vec<_> = Kernel::ALL.iter().zip(sums.iter()).map(timing).filter(|t| t.dispatches > 0).collect();
        all.sort_by_key(|t| std::cmp::Reverse(t.nanoseconds));
        all
    }
}
