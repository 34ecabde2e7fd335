//! An executor's ports by TLS, for peers with a certificate.
//!
//! Ballista (55) has a place for a Flight service of ours, and none for the service by which an executor gets its tasks: that one listens
//! in plain on the host it is told. It is told an address which only this machine reaches, and its port on the executor's own
//! address is a front which ends TLS and lets members in. The number is the same, because an executor registers the one it binds.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use arrow_flight::flight_service_server::FlightServiceServer;
use ballista_core::error::BallistaError;
use ballista_core::utils::create_grpc_server;
use ballista_executor::executor_process::ExecutorProcessConfig;
use ballista_executor::flight_service::BallistaFlightService;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use tonic::{Request, Status};

use super::scheduler::{bind, tune};
use crate::error::{Error, Result};
use crate::runtime::{Spawned, spawn_io};
use crate::trust::access::Access;
use crate::trust::listen::{Clients, TlsListener, front};
use crate::trust::tls::Tls;

/// Where the plain service may listen, in the order in which they are tried. Neither is in the way of a port on another address.
const INNER_HOSTS: [&str; 2] = ["[::1]", "127.0.0.2"];

/// Makes an executor's ports speak TLS. The front ends when what is returned is dropped.
///
/// # Errors
/// Config, when an address is none, or this machine has no second loopback address; Unreachable, when a port cannot be had.
pub(super) async fn secure_ports(config: &mut ExecutorProcessConfig, tls: &Arc<Tls>, access: &Arc<Access>) -> Result<Spawned<()>> {
    let host = config.bind_host.clone();
    let address = |host: &str, port: u16| -> Result<SocketAddr> {
        format!("{host}:{port}").parse().map_err(|e| Error::config(format!("cannot bind to {host}:{port}")).with_source(e))
    };
    let (flight, grpc) = (bind(address(&host, config.port)?).await?, bind(address(&host, config.grpc_port)?).await?);

    // The front's port is taken by now, so what can still be bound is another one.
    let free = |inner: &&&str| address(inner, config.grpc_port).is_ok_and(|inner| std::net::TcpListener::bind(inner).is_ok());
    let Some(inner) = INNER_HOSTS.iter().find(free) else {
        return Err(Error::config(format!(
            "--bind-host {host} leaves no loopback address for port {}: name the address by which others reach this executor",
            config.grpc_port
        )));
    };
    config.bind_host = inner.to_string();
    let inner = address(inner, config.grpc_port)?;
    let members = Arc::clone(access);
    let listener = TlsListener::new(grpc, Arc::clone(tls), Clients::Certified, tune);
    let front = spawn_io(front(listener, inner, move |peer| members.is_member(peer.certificate.as_ref())))?;

    let listener = Mutex::new(Some(TlsListener::new(flight, Arc::clone(tls), Clients::Certified, tune)));
    let access = Arc::clone(access);
    let (decoding, encoding) = (config.grpc_max_decoding_message_size as usize, config.grpc_max_encoding_message_size as usize);
    config.override_arrow_flight_service = Some(Arc::new(move |work_folder, _address, mut shutdown, server| {
        let listener = listener.lock().unwrap_or_else(PoisonError::into_inner).take();
        let access = Arc::clone(&access);
        tokio::runtime::Handle::current().spawn(async move {
            let Some(listener) = listener else {
                return Err(BallistaError::General("the Flight service was started twice in one process".to_string()));
            };
            let service = FlightServiceServer::new(BallistaFlightService::new(work_folder))
                .max_decoding_message_size(decoding)
                .max_encoding_message_size(encoding);
            let service = InterceptedService::new(service, move |request: Request<()>| check(&access, request));
            let served = create_grpc_server(&server).add_service(service);
            served.serve_with_incoming_shutdown(listener.incoming(), shutdown.recv()).await.map_err(BallistaError::TonicError)
        })
    }));
    Ok(front)
}

/// Whoever has a role may fetch results: what they are of, it has asked the scheduler for.
fn check(access: &Access, request: Request<()>) -> Result<Request<()>, Status> {
    let chain = request.extensions().get::<TlsConnectInfo<TcpConnectInfo>>().and_then(|peer| peer.peer_certs());
    let certificate = chain.as_ref().and_then(|chain| chain.first());
    match access.certified(certificate) {
        Ok(_) => Ok(request),
        Err(why) => Err(Status::unauthenticated(why)),
    }
}
