//! hyper's server over one connection: limits, timeouts, keep-alive, drain.
//!
//! Contract (to be filled in):
//!
//! ```text
//! pub async fn serve<H, F, B>(listener: tokio::net::TcpListener, tls: Option<Arc<tls::Front>>, front: Arc<Front<H>>)
//!   where H: Fn(http::Request<RequestBody>, Peer) -> F + Send + Sync + 'static,
//!         F: Future<Output = http::Response<B>> + Send + 'static,
//!         B: http_body::Body<Data = Bytes> + Send + 'static, B::Error: Into<BoxError>
//! pub struct Front<H> { params: Params, handler: H, events: Arc<dyn Fn(Event) + Send + Sync>,
//!                       connections: Arc<Semaphore> (shared by all workers), phase: watch::Receiver<Phase> }
//! pub struct RequestBody: http_body::Body<Data = Bytes, Error = BoxError>, with body-read timeout
//! ```
