//! The simulator's threads: one accepts and deals the connections out, each serves its share on a
//! runtime of its own.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;

use super::answer::answer;
use super::behaviour::Behaviour;
use super::bill::{Bill, Memory};

/// Connections handed to one thread and not taken up yet.
const MAX_HANDED: usize = 1024;
const MAX_THREADS: usize = 16;
/// After an accept error (no descriptors left, most likely).
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// How to start a [`Sim`].
#[derive(Clone)]
pub struct SimConfig {
    pub listen: SocketAddr,
    pub threads: usize,
    /// Serve TLS.
    pub tls: Option<Arc<rustls::ServerConfig>>,
}

impl Default for SimConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            threads: 1,
            tls: None,
        }
    }
}

/// A running provider. Stops, and drops its connections, when it is dropped.
pub struct Sim {
    pub addr: SocketAddr,
    memory: Arc<Memory>,
    stop: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
}

impl Sim {
    /// # Errors
    /// The address cannot be listened on, or a thread not started.
    pub fn start(config: SimConfig) -> std::io::Result<Self> {
        let listener = TcpListener::bind(config.listen)?;
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        let memory = Arc::<Memory>::default();
        let (stop, stopped) = watch::channel(false);
        let mut hands = Vec::new();
        let mut threads = Vec::new();
        for _ in 0..config.threads.clamp(1, MAX_THREADS) {
            let (hand, handed) = mpsc::channel(MAX_HANDED);
            hands.push(hand);
            let share = Share {
                memory: Arc::clone(&memory),
                tls: config.tls.clone().map(TlsAcceptor::from),
            };
            threads.push(on_a_thread(stopped.clone(), serve_share(handed, share))?);
        }
        threads.push(on_a_thread(stopped, accept(listener, hands))?);
        Ok(Self {
            addr,
            memory,
            stop,
            threads,
        })
    }

    #[must_use]
    pub fn bill(&self) -> Bill {
        self.memory.bill()
    }

    pub fn behave(&self, behaviour: Behaviour) {
        self.memory.behave(behaviour);
    }

    pub fn reset(&self) {
        self.memory.reset();
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}

fn on_a_thread(
    mut stopped: watch::Receiver<bool>,
    work: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::Builder::new()
        .name("aex-sim".into())
        .spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = work => {}
                    _ = stopped.wait_for(|&stopped| stopped) => {}
                }
            });
        })
}

async fn accept(listener: TcpListener, hands: Vec<mpsc::Sender<TcpStream>>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
        return;
    };
    for hand in hands.iter().cycle() {
        let stream = loop {
            match listener.accept().await {
                Ok((stream, _)) => break stream,
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        };
        let Ok(stream) = stream.into_std() else {
            continue;
        };
        if hand.send(stream).await.is_err() {
            return;
        }
    }
}

#[derive(Clone)]
struct Share {
    memory: Arc<Memory>,
    tls: Option<TlsAcceptor>,
}

async fn serve_share(mut handed: mpsc::Receiver<TcpStream>, share: Share) {
    while let Some(stream) = handed.recv().await {
        let share = share.clone();
        tokio::spawn(async move {
            let Ok(stream) = tokio::net::TcpStream::from_std(stream) else {
                return;
            };
            // Without it small chunks wait for acknowledgements; losing it only costs time.
            let _ = stream.set_nodelay(true);
            match share.tls {
                None => serve(stream, share.memory).await,
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        serve(stream, share.memory).await;
                    }
                }
            }
        });
    }
}

async fn serve<S>(stream: S, memory: Arc<Memory>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    let service = service_fn(move |request| {
        answer(Arc::clone(&memory), NUMBER.fetch_add(1, Relaxed), request)
    });
    // A connection that ends in an error is the client's affair, or was cut on purpose.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}
