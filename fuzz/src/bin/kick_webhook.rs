#![no_main]

bitbrat_fuzz::target!(kick_webhook);
