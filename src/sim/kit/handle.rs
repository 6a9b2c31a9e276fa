//! The handle of a simulated platform: its world behind a lock, and the server of that world.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::commands::{self, Fields};
use super::demo::Setting;
use super::failure::{Failure, Rejected, answer, refuse};
use crate::clock::Clock;
use crate::core::time::Timestamp;
use crate::sim::clock::SimClock;
use crate::sim::control;
use crate::sim::directory::{EventGuide, Guide, Listed, SimSource};
use crate::sim::host::{Host, Server};

/// Handle of a simulated platform with the world `W`: the same controls as over HTTP. Cloning shares it.
pub struct PlatformSim<W>(Arc<Shared<W>>);

struct Shared<W> {
    host: Host,
    world: Mutex<W>,
    address: OnceLock<SocketAddr>,
}

impl<W> Clone for PlatformSim<W> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// A list that can be requested below `/__sim/PLATFORM/`: its name, and what it contains.
pub type View<W> = (&'static str, fn(&PlatformSim<W>) -> Value);

/// The world of a simulated platform, with everything in which it differs from the others.
pub trait Simulated: Sized + Send + 'static {
    /// Its name, as in `platform:id`.
    const NAME: &'static str;
    /// The lists that can be requested, besides `world`.
    const VIEWS: &'static [View<Self>] = &[];
    /// The events that can be triggered.
    const EVENTS: &'static [EventGuide];
    /// The commands below `/__sim/PLATFORM/`.
    type Command: DeserializeOwned;
    /// The switches for deviating behavior.
    type Knobs;

    /// Returns an empty world.
    fn new(host: &Host) -> Self;

    fn routes(sim: &PlatformSim<Self>) -> Router;

    /// Returns the URLs to configure a client with, by the setting that they replace.
    fn bases(sim: &PlatformSim<Self>) -> Vec<(&'static str, String)>;

    /// Returns a client's settings with the addresses of this platform.
    fn addresses(sim: &PlatformSim<Self>) -> Vec<Setting>;

    /// Returns the switches for deviating behavior.
    fn knobs(&mut self) -> &mut Self::Knobs;

    /// Returns the actual state, as the controls show it.
    fn truth(&mut self, now: Timestamp) -> Value;

    /// Returns the sources in this world.
    fn sources(&self) -> Vec<SimSource>;

    /// Executes a command; returns its response.
    fn run(sim: &PlatformSim<Self>, command: Self::Command) -> Result<Value, Failure>;

    /// Converts members of a command to the types that it has.
    fn prepare(fields: Fields) -> Fields {
        fields
    }

    /// Returns the command that causes `event` at the source `id`, and completes its fields.
    fn cause(
        sim: &PlatformSim<Self>,
        event: &str,
        id: &str,
        fields: &mut Fields,
    ) -> Result<&'static str, Failure>;

    /// Returns how many receivers events were sent to so far.
    fn sent(&self) -> u64;

    /// Sends an event that was requested explicitly although nothing has changed.
    fn repeat(_sim: &PlatformSim<Self>, _event: &str, _id: &str) {}
}

impl<W> PlatformSim<W> {
    /// Returns the server's base URL, below which the controls are too.
    pub fn http(&self) -> String {
        let address = self.0.address.get();
        format!(
            "http://{}",
            address.map(SocketAddr::to_string).unwrap_or_default()
        )
    }

    /// Returns the server's base URL for websockets.
    pub(in crate::sim) fn ws(&self) -> String {
        self.http().replacen("http", "ws", 1)
    }

    /// Returns faults, journal, randomness and outages of this platform.
    pub fn host(&self) -> &Host {
        &self.0.host
    }

    /// Returns the simulation's clock.
    pub fn clock(&self) -> &Arc<SimClock> {
        self.0.host.clock()
    }

    /// Returns the time of the simulation.
    pub(in crate::sim) fn now(&self) -> Timestamp {
        self.clock().now()
    }

    /// Runs `act` on the world, with the time of the simulation.
    pub(in crate::sim) fn with_world<R>(&self, act: impl FnOnce(&mut W, Timestamp) -> R) -> R {
        let mut world = self.0.world.lock();
        act(&mut world, self.now())
    }

    /// Returns a function that returns this handle while it exists elsewhere.
    pub(in crate::sim) fn downgrade(&self) -> impl Fn() -> Option<Self> + Send + Sync + use<W>
    where
        W: Send,
    {
        let weak = Arc::downgrade(&self.0);
        move || weak.upgrade().map(Self)
    }
}

impl<W: Simulated> PlatformSim<W> {
    /// Returns a client's settings with the addresses of this platform.
    pub fn addresses(&self) -> Vec<Setting> {
        W::addresses(self)
    }

    /// Starts a platform with an empty world on `address`. It runs until the returned server is dropped.
    pub async fn start(host: Host, address: SocketAddr) -> io::Result<(Self, Server)> {
        Self::start_with(host, address, W::routes).await
    }

    /// As [`PlatformSim::start`], with other routes than those of the platform.
    pub(in crate::sim) async fn start_with(
        host: Host,
        address: SocketAddr,
        routes: impl FnOnce(&Self) -> Router,
    ) -> io::Result<(Self, Server)> {
        let sim = Self(Arc::new(Shared {
            world: Mutex::new(W::new(&host)),
            host: host.clone(),
            address: OnceLock::new(),
        }));
        let controls = control::routes(host.clone()).merge(sim.controls());
        let server = host.serve(address, routes(&sim), controls).await?;
        sim.0.address.get_or_init(|| server.address());
        let handle = sim.downgrade();
        host.directory().add(move || Some(Arc::new(handle()?)));
        Ok((sim, server))
    }

    /// Changes knobs.
    pub fn knobs(&self, turn: impl FnOnce(&mut W::Knobs)) {
        self.with_world(|world, _| turn(world.knobs()));
    }

    /// Returns the actual state, as the controls show it.
    pub fn truth(&self) -> Value {
        self.with_world(W::truth)
    }

    /// Executes the command `name`; returns its response.
    fn execute(&self, name: &str, fields: Fields) -> Result<Value, Failure> {
        W::run(self, commands::parse(name, W::prepare(fields))?)
    }

    /// Returns the routes of the controls below `/__sim/PLATFORM/`.
    fn controls(&self) -> Router {
        let base = format!("/__sim/{}", W::NAME);
        let mut router = Router::new().route(&format!("{base}/{{command}}"), post(execute::<W>));
        for (name, shown) in views::<W>() {
            let view = async move |State(sim): State<Self>| Json(shown(&sim));
            router = router.route(&format!("{base}/{name}"), get(view));
        }
        router.with_state(self.clone())
    }
}

/// Returns all lists that can be requested.
fn views<W: Simulated>() -> impl Iterator<Item = View<W>> {
    let world: View<W> = ("world", PlatformSim::truth);
    std::iter::once(world).chain(W::VIEWS.iter().copied())
}

async fn execute<W: Simulated>(
    State(sim): State<PlatformSim<W>>,
    Path(command): Path<String>,
    fields: Result<Json<Fields>, Rejected>,
) -> Response {
    match fields {
        Ok(Json(fields)) => answer(sim.execute(&command, fields)),
        Err(rejected) => refuse(&rejected),
    }
}

impl<W: Simulated> Listed for PlatformSim<W> {
    fn guide(&self) -> Guide {
        Guide {
            platform: W::NAME,
            address: self.http(),
            bases: W::bases(self),
            views: views::<W>().map(|(name, _)| name).collect(),
            commands: commands::names::<W::Command>(),
            events: W::EVENTS,
        }
    }

    fn sources(&self) -> Vec<SimSource> {
        self.with_world(|world, _| world.sources())
    }

    fn trigger(&self, event: &str, id: &str, mut fields: Fields) -> Result<(Value, u64), Failure> {
        let command = W::cause(self, event, id, &mut fields)?;
        let sent = || self.with_world(|world, _| world.sent());
        let before = sent();
        let answer = self.execute(command, fields)?;
        if sent() == before {
            W::repeat(self, event, id);
        }
        Ok((answer, sent() - before))
    }
}
