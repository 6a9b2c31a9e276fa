//! Pending consents: device codes waiting for a user, and authorization codes waiting for their exchange.

use std::collections::HashMap;

use super::tokens::random_text;
use crate::clock::Chance;
use crate::core::time::Timestamp;

/// Seconds in which the user must confirm a device code.
pub(super) const DEVICE_SECS: i64 = 1_800;

/// All pending consents.
#[derive(Debug, Default)]
pub(super) struct Devices {
    devices: HashMap<String, Device>,
    codes: HashMap<String, Code>,
}

#[derive(Debug)]
struct Device {
    user_code: String,
    client_id: String,
    scopes: Vec<String>,
    expires_at: Timestamp,
    state: DeviceState,
}

/// The user's decision about a device code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceState {
    /// No decision yet.
    Pending,
    /// This user agreed.
    Granted(String),
    /// The user declined; polls are answered with this message (Twitch documents none).
    Denied(String),
    /// It has expired.
    Expired,
}

/// An authorization code.
#[derive(Debug, Clone)]
pub(super) struct Code {
    pub(super) client_id: String,
    pub(super) user_id: String,
    pub(super) scopes: Vec<String>,
    pub(super) redirect_uri: String,
}

impl Devices {
    /// Starts a device flow; returns device code and user code.
    pub(super) fn start(
        &mut self,
        client_id: &str,
        scopes: Vec<String>,
        now: Timestamp,
        chance: &Chance,
    ) -> (String, String) {
        let device_code = random_text(40, chance);
        let user_code = random_text(8, chance).to_uppercase();
        let device = Device {
            user_code: user_code.clone(),
            client_id: client_id.to_owned(),
            scopes,
            expires_at: now.plus_secs(DEVICE_SECS),
            state: DeviceState::Pending,
        };
        self.devices.insert(device_code.clone(), device);
        (device_code, user_code)
    }

    /// Records what the user did with `code`, the user's or the device's, or with every pending one when empty.
    /// Returns how many codes that concerned.
    pub(super) fn decide(&mut self, code: &str, state: &DeviceState) -> usize {
        let meant = |(device_code, device): &(&String, &mut Device)| {
            if code.is_empty() {
                device.state == DeviceState::Pending
            } else {
                code == *device_code || code.eq_ignore_ascii_case(&device.user_code)
            }
        };
        self.devices
            .iter_mut()
            .filter(meant)
            .map(|(_, device)| device.state = state.clone())
            .count()
    }

    /// Exchanges a device code for the user and scopes it was granted for. `Err` is the message of the refusal.
    pub(super) fn exchange(
        &mut self,
        client_id: &str,
        device_code: &str,
        now: Timestamp,
    ) -> Result<(String, Vec<String>), String> {
        let invalid = || Err("invalid device code".to_owned());
        let known = self
            .devices
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
                self.devices.remove(device_code);
                Ok(granted)
            }
        }
    }

    /// Issues an authorization code.
    pub(super) fn issue_code(&mut self, code: Code, chance: &Chance) -> String {
        let text = random_text(30, chance);
        self.codes.insert(text.clone(), code);
        text
    }

    /// Consumes an authorization code, which works once.
    pub(super) fn take_code(&mut self, text: &str) -> Option<Code> {
        self.codes.remove(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_code_waits_for_its_user_and_works_once() {
        let (mut devices, chance) = (Devices::default(), Chance::seeded(1));
        let now = Timestamp::EPOCH;
        let (code, user_code) = devices.start("app", vec!["user:bot".into()], now, &chance);
        assert_eq!(
            devices.exchange("app", &code, now),
            Err("authorization_pending".into())
        );
        assert_eq!(
            devices.exchange("other", &code, now),
            Err("invalid device code".into())
        );
        assert_eq!(devices.decide(&user_code, &DeviceState::Granted("1".into())), 1);
        assert_eq!(
            devices.exchange("app", &code, now),
            Ok(("1".into(), vec!["user:bot".into()]))
        );
        assert_eq!(
            devices.exchange("app", &code, now),
            Err("invalid device code".into())
        );
    }

    #[test]
    fn a_device_code_ends_with_its_time() {
        let (mut devices, chance) = (Devices::default(), Chance::seeded(1));
        let (code, _) = devices.start("app", Vec::new(), Timestamp::EPOCH, &chance);
        let late = Timestamp::EPOCH.plus_secs(DEVICE_SECS);
        assert_eq!(
            devices.exchange("app", &code, late),
            Err("invalid device code".into())
        );
    }
}
