//! Tells which files below a directory their writers have finished.
