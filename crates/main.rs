//! The binary `fieldkeep`, and the allocator that it uses: a quarter of the time of merging and
//! judging went into the system's.

use mimalloc::MiMalloc;

#[cfg(not(feature = "engines"))]
#[global_allocator]
static HEAP: MiMalloc = MiMalloc;

/// Counts every allocation, in builds for the laboratory only.
#[cfg(feature = "engines")]
#[global_allocator]
static HEAP: cap::Cap<MiMalloc> = cap::Cap::new(MiMalloc, usize::MAX);

fn main() -> std::process::ExitCode {
    #[cfg(feature = "engines")]
    fieldkeep_cli::count_heap(|| (HEAP.allocated() as u64, HEAP.max_allocated() as u64));
    fieldkeep_cli::main()
}
