#![no_main]

bitbrat_fuzz::target!(discord_rest);
