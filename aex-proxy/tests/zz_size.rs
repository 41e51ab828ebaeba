fn size4<A,B,C,D,F>(_: fn(A,B,C,D)->F) -> usize { size_of::<F>() }
#[test]
fn sizes() {
    eprintln!("carry {}", size4(aex_proxy::carry::carry));
    eprintln!("job {} ", size_of::<aex_proxy::carry::Job>());
    eprintln!("exchange {} ", size_of::<aex_proxy::exchange::Exchange>());
    eprintln!("grant {} ", size_of::<aex_admin_proto::worker::Grant>());
    eprintln!("ReserveReply {} ", size_of::<aex_admin_proto::worker::ReserveReply>());
    eprintln!("SettleParams {} ", size_of::<aex_admin_proto::worker::SettleParams>());
    eprintln!("Upstream {} ", size_of::<aex_proxy::egress::Upstream>());
    eprintln!("Request {} ", size_of::<http::Request<http_body_util::Full<bytes::Bytes>>>());
    eprintln!("parts {} ", size_of::<http::response::Parts>());
    eprintln!("Resp {} ", size_of::<http::Response<aex_proxy::body::Outgoing>>());
    let admin = || -> aex_proxy::admin::Admin { unimplemented!() };
    fn of<F>(_: impl FnOnce() -> F) -> usize { size_of::<F>() }
    eprintln!("reserve {}", of(|| { let a: &'static aex_proxy::admin::Admin = Box::leak(Box::new(admin())); let p: &'static aex_admin_proto::worker::ReserveParams = unimplemented!(); #[allow(unreachable_code)] a.reserve(p) }));
    eprintln!("settle {}", of(|| { let a: &'static aex_proxy::admin::Admin = Box::leak(Box::new(admin())); a.settle(unimplemented!(), unimplemented!()) }));
    eprintln!("send {}", of(|| { let a: &'static aex_proxy::egress::Egress = unimplemented!(); a.send(unimplemented!()) }));
    eprintln!("serve {}", of(|| { let a: &'static aex_proxy::serve::Shared = unimplemented!(); aex_proxy::serve::serve(a, unimplemented!()) }));
}
