//! How much memory an adapter has, where its driver tells.

/// Bytes of the largest heap that is the device's own; none where the API does not tell.
pub(super) fn device_memory(adapter: &wgpu::Adapter) -> Option<u64> {
    vulkan(adapter)
}

#[cfg(any(target_os = "linux", target_os = "windows", target_os = "android", target_os = "freebsd"))]
fn vulkan(adapter: &wgpu::Adapter) -> Option<u64> {
    /// `VK_MEMORY_HEAP_DEVICE_LOCAL_BIT`.
    const DEVICE_LOCAL: u32 = 1;
    // SAFETY: nothing is destroyed or changed through what this gives.
    let adapter = unsafe { adapter.as_hal::<wgpu::hal::api::Vulkan>() }?;
    let instance = adapter.shared_instance().raw_instance();
    // SAFETY: the physical device is one of this instance, and both outlive the call.
    let memory = unsafe { instance.get_physical_device_memory_properties(adapter.raw_physical_device()) };
    let heaps = memory.memory_heaps.iter().take(memory.memory_heap_count as usize);
    heaps.filter(|heap| heap.flags.as_raw() & DEVICE_LOCAL != 0).map(|heap| heap.size).max()
}

#[cfg(not(any(target_os = "linux", target_os = "windows", target_os = "android", target_os = "freebsd")))]
fn vulkan(_: &wgpu::Adapter) -> Option<u64> {
    None
}
