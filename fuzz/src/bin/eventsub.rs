#![no_main]

bitbrat_fuzz::target!(eventsub);
