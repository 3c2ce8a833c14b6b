//! What happens: admission, log, materialising and judging on one store.
