//! Requests through the listeners, on a real data directory.
