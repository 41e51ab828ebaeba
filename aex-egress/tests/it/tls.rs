//! Providers behind TLS, with a certificate authority of their own.

use std::sync::Arc;

use aex_admin_proto::egress::{Failure, ProviderConfig};
use http::Version;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls_pki_types::PrivateKeyDer;
use tokio_rustls::TlsAcceptor;

use crate::OPERATOR_KEY;
use crate::admin::{Admin, provider_config, ticket};
use crate::egress::{Egress, Home};
use crate::provider::Provider;
use crate::worker::{Got, post};

pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer }
    }

    fn acceptor(&self, protocols: &[&str]) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let crypto = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(crypto)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }
}

pub(crate) struct World {
    pub(crate) provider: Provider,
    pub(crate) admin: Admin,
    pub(crate) egress: Egress,
    _home: Home,
}

impl World {
    pub(crate) async fn new(protocols: &[&str], trusts: impl FnOnce(&Authority) -> String) -> Self {
        let home = Home::new();
        let authority = Authority::new();
        let provider = Provider::start_with(Some(authority.acceptor(protocols))).await;
        // Beside models.yaml: it reads no other directory of the home.
        let beside = home.path().join("config");
        std::fs::create_dir(&beside).unwrap();
        let ca_file = beside.join("ca.pem");
        std::fs::write(&ca_file, trusts(&authority)).unwrap();
        let config = ProviderConfig {
            ca_file: Some(ca_file.to_str().unwrap().into()),
            ..provider_config("sim", &format!("https://{}/v1", provider.address))
        };
        let admin = Admin::start(&home.run(), vec![config]);
        let egress = home.start().await;
        admin.acting_on(1).await;
        Self {
            provider,
            admin,
            egress,
            _home: home,
        }
    }

    async fn post(&self, path: &str, ticket: &str, body: &str) -> Got {
        post(&self.egress.socket, path, ticket, body).await
    }
}

pub(crate) fn its_own(authority: &Authority) -> String {
    authority.issuer.pem()
}

async fn passes(protocols: &[&str], version: Version) {
    let world = World::new(protocols, its_own).await;
    for _ in 0..5 {
        let (id, ticket) = ticket("sim", "/echo");
        let got = world.post("/echo", &ticket, "{}").await;
        assert_eq!((got.status.as_u16(), got.body.as_str()), (200, "{}"));
        assert!(world.admin.ended(id).await.complete);
    }
    assert_eq!(world.provider.connections(), 1, "it is kept");
    let (id, events) = ticket("sim", "/three-events");
    let got = world.post("/three-events", &events, "x").await;
    assert!(got.is_whole && got.body.contains("data: 2"));
    assert!(world.admin.ended(id).await.complete);
    let (id, cut) = ticket("sim", "/one-then-cut");
    let got = world.post("/one-then-cut", &cut, "x").await;
    assert!(!got.is_whole);
    assert_eq!(world.admin.ended(id).await.failure, Some(Failure::Reset));
    for seen in world.provider.seen() {
        assert_eq!(seen.version, version);
        assert_eq!(
            seen.headers["authorization"],
            format!("Bearer {OPERATOR_KEY}")
        );
    }
    assert_eq!(world.provider.seen()[0].body, "{}");
}

#[tokio::test]
async fn http_1_1_over_tls() {
    passes(&[], Version::HTTP_11).await;
}

#[tokio::test]
async fn http_2_over_tls() {
    passes(&["h2", "http/1.1"], Version::HTTP_2).await;
}

#[tokio::test]
async fn http_2_carries_many_exchanges_on_one_connection() {
    let world = World::new(&["h2"], its_own).await;
    let first = ticket("sim", "/echo").1;
    assert_eq!(world.post("/echo", &first, "x").await.status, 200);
    let body = "x".repeat(300_000);
    let all = (0..40).map(|_| async {
        let (_, ticket) = ticket("sim", "/echo");
        let got = world.post("/echo", &ticket, &body).await;
        assert_eq!(got.body.len(), body.len());
    });
    futures_util::future::join_all(all).await;
    assert_eq!(world.provider.connections(), 1);
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_sent_nothing() {
    let world = World::new(&[], |_| Authority::new().issuer.pem()).await;
    let (id, ticket) = ticket("sim", "/echo");
    let got = world.post("/echo", &ticket, "x").await;
    assert_eq!(got.failure(), Some("tls"));
    let exchange = world.admin.ended(id).await;
    assert_eq!(
        (exchange.failure, exchange.sent),
        (Some(Failure::Tls), false)
    );
    assert_eq!(world.provider.seen().len(), 0);
}

#[tokio::test]
async fn without_a_ca_file_the_systems_roots_decide_and_fit_in_memory() {
    let world = World::new(&[], its_own).await;
    let url = format!("https://{}/v1", world.provider.address);
    world.admin.configure(2, vec![provider_config("sim", &url)]);
    world.admin.acting_on(2).await;
    for _ in 0..3 {
        let (id, ticket) = ticket("sim", "/echo");
        let got = world.post("/echo", &ticket, "x").await;
        assert_eq!(got.failure(), Some("tls"));
        assert!(!world.admin.ended(id).await.sent);
    }
    assert_eq!(world.provider.seen().len(), 0);
    let rss_kib = world.egress.peak_rss_kib();
    assert!(rss_kib < 25 * 1024, "{rss_kib} KiB");
}
