//! Stands between a row and the kernel: addresses that never become a connection that one could answer on.
//! Invariant: the port stays taken for as long as the value lives, so nobody else answers there.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// After this long a handshake on this machine is one that the kernel dropped.
const DROPPED: Duration = Duration::from_millis(300);
/// More handshakes than the shortest queue can hold.
const QUEUE_MAX: usize = 64;

/// A port that is taken and on which nobody listens: connections are refused.
pub(crate) struct Refusing {
    socket: TcpSocket,
    address: SocketAddr,
}

impl Refusing {
    /// Takes a free port of 127.0.0.1.
    pub(crate) fn take() -> anyhow::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address })
    }

    /// The URL of a subscription with this number.
    pub(crate) fn url(&self, subscriber: u32) -> String {
        format!("http://{}/s/{subscriber}", self.address)
    }

    /// Gives the port back, to be listened on.
    pub(crate) fn give_back(self) -> SocketAddr {
        drop(self.socket);
        self.address
    }
}

/// A port whose queue of handshakes is full: further ones are dropped without a word, as in a black hole.
pub(crate) struct Blackhole {
    _listener: TcpListener,
    _queued: Vec<TcpStream>,
    address: SocketAddr,
}

impl Blackhole {
    /// Takes a free port of 127.0.0.1 and fills its queue.
    pub(crate) async fn dig() -> anyhow::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let listener = socket.listen(1)?;
        let address = listener.local_addr()?;
        let mut queued = Vec::new();
        while let Ok(connected) = tokio::time::timeout(DROPPED, TcpStream::connect(address)).await {
            queued.push(connected?);
            anyhow::ensure!(queued.len() < QUEUE_MAX, "this kernel's queue of handshakes does not fill");
        }
        Ok(Self { _listener: listener, _queued: queued, address })
    }

    /// The URL of a subscription with this number.
    pub(crate) fn url(&self, subscriber: u32) -> String {
        format!("http://{}/s/{subscriber}", self.address)
    }
}
