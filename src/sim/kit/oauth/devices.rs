//! Device codes that wait for the decision of a user.

use std::collections::HashMap;

use crate::clock::Chance;
use crate::core::time::Timestamp;
use crate::sim::kit::random_text::{ALPHANUMERIC, random};

/// Seconds in which the user must confirm a device code.
pub const DEVICE_SECS: i64 = 1_800;

/// All device codes.
#[derive(Debug)]
pub struct Devices<U>(HashMap<String, Device<U>>);

#[derive(Debug)]
struct Device<U> {
    user_code: String,
    client_id: String,
    scopes: Vec<String>,
    expires_at: Timestamp,
    state: DeviceState<U>,
}

/// The user's decision about a device code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceState<U> {
    /// No decision yet.
    Pending,
    /// This user agreed.
    Granted(U),
    /// The user declined; polls are answered with this message (Twitch documents none).
    Denied(String),
    /// It has expired.
    Expired,
}

impl<U> Default for Devices<U> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<U: Clone + PartialEq> Devices<U> {
    /// Starts a device flow; returns device code and user code.
    pub(in crate::sim) fn start(
        &mut self,
        client_id: &str,
        scopes: Vec<String>,
        expires_at: Timestamp,
        chance: &Chance,
    ) -> (String, String) {
        let device_code = random(ALPHANUMERIC, 40, chance);
        let user_code = random(ALPHANUMERIC, 8, chance).to_uppercase();
        let device = Device {
            user_code: user_code.clone(),
            client_id: client_id.to_owned(),
            scopes,
            expires_at,
            state: DeviceState::Pending,
        };
        self.0.insert(device_code.clone(), device);
        (device_code, user_code)
    }

    /// Records what the user did with `code`, the user's or the device's, or with every pending one when empty.
    /// Returns how many codes that concerned.
    pub(in crate::sim) fn decide(&mut self, code: &str, state: &DeviceState<U>) -> usize {
        let meant = |(device_code, device): &(&String, &mut Device<U>)| {
            if code.is_empty() {
                device.state == DeviceState::Pending
            } else {
                code == *device_code || code.eq_ignore_ascii_case(&device.user_code)
            }
        };
        self.0
            .iter_mut()
            .filter(meant)
            .map(|(_, device)| device.state = state.clone())
            .count()
    }

    /// Exchanges a device code for the user and scopes it was granted for. `Err` is the message of the refusal.
    pub(in crate::sim) fn exchange(
        &mut self,
        client_id: &str,
        device_code: &str,
        now: Timestamp,
    ) -> Result<(U, Vec<String>), String> {
        let invalid = || Err("invalid device code".to_owned());
        let known = self
            .0
            .get(device_code)
            .filter(|device| device.client_id == client_id);
        let Some(device) = known else { return invalid() };
        if device.expires_at <= now {
            return invalid();
        }
        match &device.state {
            DeviceState::Pending => Err("authorization_pending".to_owned()),
            DeviceState::Expired => invalid(),
            DeviceState::Denied(message) => Err(message.clone()),
            DeviceState::Granted(user_id) => {
                let granted = (user_id.clone(), device.scopes.clone());
                self.0.remove(device_code);
                Ok(granted)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_code_waits_for_its_user_and_works_once() {
        let (mut devices, chance) = (Devices::default(), Chance::seeded(1));
        let now = Timestamp::EPOCH;
        let end = now.plus_secs(DEVICE_SECS);
        let (code, user_code) = devices.start("app", vec!["user:bot".into()], end, &chance);
        assert_eq!(
            devices.exchange("app", &code, now),
            Err("authorization_pending".into())
        );
        assert_eq!(
            devices.exchange("other", &code, now),
            Err("invalid device code".into())
        );
        assert_eq!(devices.decide(&user_code, &DeviceState::Granted(1)), 1);
        assert_eq!(
            devices.exchange("app", &code, now),
            Ok((1, vec!["user:bot".into()]))
        );
        assert_eq!(
            devices.exchange("app", &code, now),
            Err("invalid device code".into())
        );
    }

    #[test]
    fn a_device_code_ends_with_its_time() {
        let (mut devices, chance) = (Devices::<u64>::default(), Chance::seeded(1));
        let late = Timestamp::EPOCH.plus_secs(DEVICE_SECS);
        let (code, _) = devices.start("app", Vec::new(), late, &chance);
        assert_eq!(
            devices.exchange("app", &code, late),
            Err("invalid device code".into())
        );
    }
}
