//! The servers of a URL, tried one after the other, each with its whole time.

use std::net::IpAddr;
use std::time::Duration;

use rand::seq::SliceRandom;
use tokio_postgres::config::{Host, LoadBalanceHosts, SslMode};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Config, Connection, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::error::may_work_in_plain_text;
use crate::store::StoreError;

type Connected = (Client, Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>);

pub(super) struct Hosts {
    config: Config,
    tls: MakeRustlsConnect,
    /// For one address: TCP, encryption and login together. The driver's own covers TCP only.
    timeout: Duration,
}

/// One server, as the URL names it.
struct Server {
    host: Option<Host>,
    address: Option<IpAddr>,
    port: u16,
}

impl Hosts {
    pub(super) fn new(config: Config, tls: MakeRustlsConnect, timeout: Duration) -> Self {
        Self { config, tls, timeout }
    }

    /// The first one that takes the login and is of the wanted kind.
    pub(super) async fn connect(&self) -> Result<Connected, StoreError> {
        let random = self.config.get_load_balance_hosts() == LoadBalanceHosts::Random;
        let mut servers = self.servers();
        if random {
            servers.shuffle(&mut rand::rng());
        }
        let mut failure = None;
        for server in servers {
            let mut addresses = match self.addresses(&server).await {
                Ok(addresses) => addresses,
                Err(error) => {
                    failure = Some(more_telling(failure, error));
                    continue;
                }
            };
            if random {
                addresses.shuffle(&mut rand::rng());
            }
            for address in addresses {
                match self.connect_one(&server, address).await {
                    Ok(connected) => return Ok(connected),
                    Err(error) => failure = Some(more_telling(failure, error)),
                }
            }
        }
        Err(failure.unwrap_or_else(|| StoreError::Unavailable("the URL names no server".into())))
    }

    fn servers(&self) -> Vec<Server> {
        let (hosts, addresses, ports) = (self.config.get_hosts(), self.config.get_hostaddrs(), self.config.get_ports());
        (0..hosts.len().max(addresses.len()))
            .map(|index| Server {
                host: hosts.get(index).cloned(),
                address: addresses.get(index).copied(),
                port: ports.get(index).or(ports.first()).copied().unwrap_or(5432),
            })
            .collect()
    }

    /// A name may have several; `None` stands for a Unix socket.
    async fn addresses(&self, server: &Server) -> Result<Vec<Option<IpAddr>>, StoreError> {
        let Server { host, address, port } = server;
        let Some(Host::Tcp(name)) = host.as_ref().filter(|_| address.is_none()) else {
            return Ok(vec![*address]);
        };
        let looked_up = tokio::time::timeout(self.timeout, tokio::net::lookup_host((&**name, *port))).await;
        let unknown = |why: String| StoreError::Unavailable(format!("the host {name} can't be looked up: {why}"));
        let found = looked_up.map_err(|_| unknown("no answer".into()))?.map_err(|error| unknown(error.to_string()))?;
        Ok(found.map(|address| Some(address.ip())).collect())
    }

    async fn connect_one(&self, server: &Server, address: Option<IpAddr>) -> Result<Connected, StoreError> {
        let mut config = self.without_hosts();
        match &server.host {
            Some(Host::Tcp(name)) => config.host(name),
            #[cfg(unix)]
            Some(Host::Unix(path)) => config.host_path(path),
            None => &mut config,
        };
        if let Some(address) = address {
            config.hostaddr(address);
        }
        config.port(server.port);
        match self.attempt(&config).await? {
            // As libpq does, where encryption is only preferred.
            Err(error) if config.get_ssl_mode() == SslMode::Prefer && may_work_in_plain_text(&error) => {
                config.ssl_mode(SslMode::Disable);
                let plain = self.attempt(&config).await?;
                plain.map_err(|plain| more_telling(Some(error.into()), plain.into()))
            }
            attempt => Ok(attempt?),
        }
    }

    async fn attempt(&self, config: &Config) -> Result<Result<Connected, tokio_postgres::Error>, StoreError> {
        let connected = tokio::time::timeout(self.timeout, config.connect(self.tls.clone())).await;
        connected.map_err(|_| StoreError::Unavailable(format!("no connection within {} ms", self.timeout.as_millis())))
    }

    /// The driver has no way to take hosts out of a configuration.
    fn without_hosts(&self) -> Config {
        let from = &self.config;
        let mut config = Config::new();
        config
            // A server that asks for a password then says what is the matter, instead of the driver.
            .password(from.get_password().unwrap_or_default())
            .ssl_mode(from.get_ssl_mode())
            .ssl_negotiation(from.get_ssl_negotiation())
            .keepalives(from.get_keepalives())
            .keepalives_idle(from.get_keepalives_idle())
            .target_session_attrs(from.get_target_session_attrs())
            .channel_binding(from.get_channel_binding())
            .connect_timeout(self.timeout);
        from.get_user().map(|user| config.user(user));
        from.get_dbname().map(|name| config.dbname(name));
        from.get_options().map(|options| config.options(options));
        from.get_application_name().map(|name| config.application_name(name));
        from.get_tcp_user_timeout().map(|timeout| config.tcp_user_timeout(*timeout));
        from.get_keepalives_interval().map(|interval| config.keepalives_interval(interval));
        from.get_keepalives_retries().map(|retries| config.keepalives_retries(retries));
        config
    }
}

/// A server that refuses says more than one that does not answer.
fn more_telling(before: Option<StoreError>, error: StoreError) -> StoreError {
    match before {
        Some(before @ StoreError::Refused(_)) => before,
        _ => error,
    }
}
