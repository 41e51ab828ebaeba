//! Who listens at TCP ports of this host, as the kernel's tables tell anybody (proc_net(5)). Sockets that systemd
//! made are root's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const LISTENING: &str = "0A";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listener {
    pub(crate) ip: IpAddr,
    pub(crate) port: u16,
    pub(crate) uid: u32,
}

/// All of them; a table that cannot be read has none.
pub(crate) fn listeners() -> Vec<Listener> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].into_iter();
    tables
        .filter_map(|table| std::fs::read_to_string(table).ok())
        .flat_map(|table| read(&table))
        .collect()
}

/// Whether somebody listens at this port, and nobody but root does, at whichever address.
pub(crate) fn is_roots(all: &[Listener], port: u16) -> bool {
    let mut at = all.iter().filter(|one| one.port == port).peekable();
    at.peek().is_some() && at.all(|one| one.uid == 0)
}

/// The lines of one table, its heading among them.
pub(crate) fn read(table: &str) -> Vec<Listener> {
    let line = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (local, state, uid) = (fields.get(1)?, fields.get(3)?, fields.get(7)?);
        let (ip, port) = local.split_once(':')?;
        Some(Listener {
            ip: address(ip)?,
            port: u16::from_str_radix(port, 16).ok()?,
            uid: uid.parse().ok()?,
        })
        .filter(|_| *state == LISTENING)
    };
    table.lines().filter_map(line).collect()
}

/// Words of 32 bits, each as this machine has it in memory.
fn address(hex: &str) -> Option<IpAddr> {
    let words: Option<Vec<[u8; 4]>> = (0..hex.len())
        .step_by(8)
        .map(|at| {
            let word = u32::from_str_radix(hex.get(at..at + 8)?, 16).ok()?;
            Some(word.to_ne_bytes())
        })
        .collect();
    let words = words?;
    match words.as_slice() {
        [word] => Some(IpAddr::V4(Ipv4Addr::from(*word))),
        [..] if words.len() == 4 => {
            let bytes: [u8; 16] = words.concat().try_into().ok()?;
            Some(IpAddr::V6(Ipv6Addr::from(bytes)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_tell_who_listens_where() {
        let line = |local: &str, state: &str, uid: u32| {
            format!("  0: {local} 00000000:0000 {state} 0:0 00:0 0 {uid} 0 1 1 0 100 0 0 10 0\n")
        };
        let table = [
            "  sl  local_address rem_address   st tx_queue rx_queue\n".to_owned(),
            line("0100007F:2328", "01", 7),
            line("0100007F:2328", "0A", 0),
            line("00000000000000000000000001000000:238C", "0A", 7),
            line("0100007F:238C", "0A", 0),
        ]
        .concat();
        let all = read(&table);
        let told: Vec<String> = all
            .iter()
            .map(|one| format!("{} {} {}", one.ip, one.port, one.uid))
            .collect();
        assert_eq!(told, ["127.0.0.1 9000 0", "::1 9100 7", "127.0.0.1 9100 0"]);
        assert!(is_roots(&all, 9000));
        assert!(!is_roots(&all, 9100), "somebody else is there too");
        assert!(!is_roots(&all, 9200), "nobody is there");
    }

    #[test]
    fn a_listener_of_this_host_is_found() {
        let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let at = held.local_addr().unwrap();
        let own = nix::unistd::geteuid().as_raw();
        let found = Listener {
            ip: at.ip(),
            port: at.port(),
            uid: own,
        };
        assert!(listeners().contains(&found));
    }
}
