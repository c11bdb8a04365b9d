//! Servers of all kinds, over real sockets.
