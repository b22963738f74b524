//! One test binary; the file name states the level.
