//! Who is at the other end of an agent's connection, as the operating system and TLS tell the worker, and what
//! a scope asks of it: a token that is stolen is worth nothing where its thief cannot be.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::CertDigest;
use crate::operator::Settings;

/// Absent is what is not known: over TCP no uid, without a client's certificate none of that.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Peer {
    /// Of the process that connected, by `SO_PEERCRED` of its Unix socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Of the certificate that it showed, and that verified.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_cert: Option<CertDigest>,
    /// The group that the worker is there for, known by the socket that it asks at: never what it says.
    #[serde(skip)]
    pub within: Option<GroupMark>,
}

/// A group's name, short and of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GroupMark([u8; 32]);

impl GroupMark {
    #[must_use]
    pub fn of(name: &str) -> Self {
        Self(Sha256::digest(name.as_bytes()).into())
    }
}

/// To what of its peer a scope is bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BoundTo {
    Uid,
    ClientCert,
    /// Workers that serve its group.
    Worker,
}

impl BoundTo {
    /// As the setting is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Uid => "uid",
            Self::ClientCert => "client_cert",
            Self::Worker => "worker",
        }
    }
}

impl fmt::Display for BoundTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Settings {
    /// To what these settings are bound that `peer` is not. What is not known of a peer does not match.
    #[must_use]
    pub fn broken_by(&self, peer: &Peer) -> Option<BoundTo> {
        let other_uid = self.uid.is_some() && self.uid != peer.uid;
        let other_cert = self.client_cert.is_some() && self.client_cert != peer.client_cert;
        match (other_uid, other_cert) {
            (true, _) => Some(BoundTo::Uid),
            (false, true) => Some(BoundTo::ClientCert),
            (false, false) => None,
        }
    }

    /// Of which peer these settings alone take a token.
    #[must_use]
    pub fn bound_to(&self) -> Option<Peer> {
        let bound = Peer {
            uid: self.uid,
            client_cert: self.client_cert,
            within: None,
        };
        (bound != Peer::default()).then_some(bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_same_peer_fits_and_an_unknown_one_does_not() {
        let cert = |text: &str| Some(CertDigest::of(text.as_bytes()));
        let settings = |uid, client_cert| Settings {
            uid,
            client_cert,
            ..Settings::default()
        };
        for (bound, peer, broken) in [
            ((None, None), (None, None), None),
            ((None, None), (Some(7), cert("a")), None),
            ((Some(7), None), (Some(7), None), None),
            ((Some(7), None), (Some(8), None), Some(BoundTo::Uid)),
            ((Some(0), None), (None, None), Some(BoundTo::Uid)),
            ((None, cert("a")), (None, cert("a")), None),
            (
                (None, cert("a")),
                (Some(7), cert("b")),
                Some(BoundTo::ClientCert),
            ),
            (
                (None, cert("a")),
                (Some(7), None),
                Some(BoundTo::ClientCert),
            ),
            (
                (Some(7), cert("a")),
                (Some(7), cert("b")),
                Some(BoundTo::ClientCert),
            ),
            ((Some(7), cert("a")), (None, cert("a")), Some(BoundTo::Uid)),
        ] {
            let peer = Peer {
                uid: peer.0,
                client_cert: peer.1,
                within: None,
            };
            assert_eq!(settings(bound.0, bound.1).broken_by(&peer), broken);
        }
    }
}
