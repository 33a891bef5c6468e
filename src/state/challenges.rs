//! What to answer whoever asks whether we control a name (HTTP-01, RFC 8555 §8.3).
//!
//! A token is known from when an order needs it until the order ends, so the table is as small as
//! the number of orders under way; beyond its bound the newest is not taken, and its order fails.

use std::collections::HashMap;
use std::sync::Arc;

/// Answers by token.
#[derive(Debug, Default)]
pub struct Challenges(HashMap<String, Arc<str>>);

impl Challenges {
    /// Remembers what to answer about `token`.
    pub fn put(&mut self, token: String, answer: &str) {
        if self.0.len() < PLACES {
            self.0.insert(token, answer.into());
        }
    }

    /// Forgets a token.
    pub fn remove(&mut self, token: &str) {
        self.0.remove(token);
    }

    /// Returns what to answer about `token`.
    pub fn answer(&self, token: &str) -> Option<Arc<str>> {
        self.0.get(token).cloned()
    }
}

const PLACES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_until_it_is_removed() {
        let mut challenges = Challenges::default();
        challenges.put("a".to_owned(), "a.thumb");
        assert_eq!(challenges.answer("a").as_deref(), Some("a.thumb"));
        assert_eq!(challenges.answer("b"), None);
        challenges.remove("a");
        assert_eq!(challenges.answer("a"), None);
    }

    #[test]
    fn tokens_have_a_bound() {
        let mut challenges = Challenges::default();
        (0..=PLACES).for_each(|n| challenges.put(n.to_string(), "x"));
        assert!(challenges.answer("0").is_some());
        assert!(challenges.answer(&PLACES.to_string()).is_none());
    }
}
