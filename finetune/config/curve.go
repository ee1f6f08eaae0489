package config

import (
	"math"

	"github.com/mergekit/mergekit/finetune/schedule"
)

// Curve is the learning rate of each step in a run of total steps.
func (c *Config) Curve(total int) (schedule.Curve, error) {
	s, lr := &c.Schedule, c.Optim.LR
	steps := func(ratio float64) int { return int(math.Round(ratio * float64(total))) }
	warmup := s.WarmupSteps
	if warmup == 0 { // a given 0 has set the ratio to 0 as well
		warmup = schedule.WarmupSteps(s.WarmupRatio, total)
	}
	return schedule.New(s.Kind, schedule.Params{
		LR: lr, MinLR: lr * s.MinLRRatio, Total: total, Warmup: warmup,
		DecaySteps: steps(s.DecayRatio), Decay: s.Decay,
		ConstLR: lr * s.ConstLRRatio, CooldownSteps: steps(s.CooldownRatio), Cooldown: s.Cooldown,
		Offset: s.Offset,
	})
}
