//! Starts and breaks real processes.
