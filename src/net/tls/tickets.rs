//! Session tickets: keys that all workers share, made anew at an interval.
//!
//! A ticket holds a session under a key that only this process has ever had. A key encrypts for one
//! interval and decrypts for one more; then it is gone, and with it the secrets of recorded sessions.
//! The rotation is rustls's; its own keys cannot be given another interval, so each of them is
//! wrapped whole.

use std::sync::Arc;
use std::time::Duration;

use rustls::TicketRotator;
use rustls::crypto::GetRandomFailed;
use rustls::crypto::aws_lc_rs;
use rustls::server::ProducesTickets;

/// Makes the keys of session tickets; each is replaced after `interval`, at most
/// [`INTERVAL_MAX`], counted in whole seconds.
pub(super) fn rotating(interval: Duration) -> Result<Arc<dyn ProducesTickets>, rustls::Error> {
    let seconds = interval.min(INTERVAL_MAX).as_secs().max(1);
    let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
    Ok(Arc::new(TicketRotator::new(seconds, key)?))
}

/// Drops keys whose time is over, even when no client comes.
pub(super) fn rotate(tickets: &dyn ProducesTickets) {
    // The rotation happens before the first encryption or decryption after the interval.
    drop(tickets.encrypt(&[]));
}

fn key() -> Result<Box<dyn ProducesTickets>, GetRandomFailed> {
    let key = aws_lc_rs::Ticketer::new().map_err(|_| GetRandomFailed)?;
    Ok(Box::new(Key(key)))
}

/// One key of the rotation.
#[derive(Debug)]
struct Key(Arc<dyn ProducesTickets>);

impl ProducesTickets for Key {
    fn enabled(&self) -> bool {
        self.0.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.0.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.0.encrypt(plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.0.decrypt(cipher)
    }
}

/// rustls replaces the wrapped key after this time, so a longer interval would not be one.
pub const INTERVAL_MAX: Duration = Duration::from_secs(6 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_read_by_whoever_shares_the_keys() {
        let tickets = rotating(Duration::from_secs(60)).unwrap();
        let ticket = tickets.encrypt(b"session").unwrap();
        let shared = Arc::clone(&tickets);
        assert_eq!(shared.decrypt(&ticket).unwrap(), b"session");
        let others = rotating(Duration::from_secs(60)).unwrap();
        assert_eq!(others.decrypt(&ticket), None);
    }

    #[test]
    fn a_ticket_lives_for_two_intervals() {
        let tickets = rotating(Duration::from_secs(60)).unwrap();
        assert_eq!(tickets.lifetime(), 120);
    }

    #[test]
    fn an_interval_is_at_least_a_second_and_at_most_that_of_rustls() {
        assert_eq!(rotating(Duration::from_millis(1)).unwrap().lifetime(), 2);
        let longest = rotating(Duration::MAX).unwrap();
        assert_eq!(u64::from(longest.lifetime()), 2 * INTERVAL_MAX.as_secs());
    }
}
