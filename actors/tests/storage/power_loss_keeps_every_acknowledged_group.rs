//! power_loss_keeps_every_acknowledged_group
