package metrics

import "github.com/tandem-ann/tandem/server/audit"

const (
	// recallSeries are those of a stratum of audited queries, and auditSeries those of audits
	// that are of no arm.
	recallSeries, auditSeries = 9, 13
	// armStrata are those of an arm, beside those of its segments: all, those that give an ef,
	// four plans, and the segments together that have none.
	armStrata = 7
	// maxNodes is how many nodes have series of their own, over all arms: each arm has the same
	// number, and those with an alarm come first.
	maxNodes = 64
)

// shown are those strata of one of so many arms that have series.
func shown(all []audit.Stratum, arms int) (list []*audit.Stratum) {
	segments, nodes := maxPairs/arms, maxNodes/arms
	for _, alarmed := range []bool{true, false} {
		for i := range all {
			one := &all[i]
			switch own := one.Kind == audit.Segment && one.Name != audit.OtherSegments; {
			case one.Kind == audit.Node && (one.Alarm != nil) == alarmed && nodes > 0:
				nodes--
				list = append(list, one)
			case one.Kind == audit.Node || alarmed || own && segments == 0:
			default:
				if own {
					segments--
				}
				list = append(list, one)
			}
		}
	}
	return list
}

// ofStrata is a metric of one value for each stratum of each arm, of those that have one.
func ofStrata(name, help string, value func(*audit.Stratum) (float64, bool)) stateMetric {
	return stateMetric{name: name, help: help, labels: []string{"arm", "stratum", "name"}, values: func(s *State, set setter) {
		for i := range s.Arms {
			for _, one := range shown(s.Arms[i].Recall, len(s.Arms)) {
				if v, ok := value(one); ok {
					set(v, s.Arms[i].Name, one.Kind.String(), one.Name)
				}
			}
		}
	}}
}

// recallMetrics are those of what audits have found. A mean of few audits says little, so it is
// left out; bounds say what they know whenever it is.
func recallMetrics() []stateMetric {
	list := []stateMetric{
		ofStrata("tandem_recall_ratio", "Mean recall@k of the audits in the window, 0 to 1; left out where there is not enough data.",
			func(s *audit.Stratum) (float64, bool) { return s.Recall, s.Enough }),
		ofStrata("tandem_recall_worst_decile_ratio", "Mean recall@k of the tenth of the audits in the window that have the lowest, 0 to 1; left out where there is not enough data.",
			func(s *audit.Stratum) (float64, bool) { return s.WorstDecile, s.Enough }),
		ofStrata("tandem_recall_low_ratio", "What the mean recall of now is above, however often it is looked at; 0 if nothing is known.",
			func(s *audit.Stratum) (float64, bool) { return s.Low, true }),
		ofStrata("tandem_recall_high_ratio", "What the mean recall of now is below, however often it is looked at; 1 if nothing is known.",
			func(s *audit.Stratum) (float64, bool) { return s.High, true }),
		ofStrata("tandem_recall_floor_ratio", "Recall that there is an alarm below; left out of queries that give an ef, which raise none, and before the first audit.",
			func(s *audit.Stratum) (float64, bool) { return s.Floor, s.Floor > 0 }),
		ofStrata("tandem_recall_alarm", "Whether the recall of these queries is below its floor for sure, 0 or 1; left out of queries that give an ef.",
			func(s *audit.Stratum) (float64, bool) { return number(s.Alarm != nil), s.Kind != audit.Ef }),
		ofStrata("tandem_recall_enough_data", "Whether there are as many audits in the window as it takes for their mean to say something, 0 or 1.",
			func(s *audit.Stratum) (float64, bool) { return number(s.Enough), true }),
		ofStrata("tandem_recall_window_audits", "Audits in the window, which has the last 512 of the last 15 minutes at most.",
			func(s *audit.Stratum) (float64, bool) { return float64(s.Audits), true }),
		ofStrata("tandem_recall_audits_total", "Audits since the generation began to answer.",
			func(s *audit.Stratum) (float64, bool) { return float64(s.Total), true }),
	}
	list[len(list)-1].counter = true
	return append(list, auditMetrics()...)
}

func auditMetrics() []stateMetric {
	audited := func(s *State) bool { return s.Audits != nil }
	used := gauge("tandem_audit_cpu_seconds_total", "Time of one processor that audits took, in seconds: of a router on all nodes together, for its own; of a node there, for those of all routers.", audited,
		func(s *State) float64 { return s.Audits.Used.Seconds() })
	used.counter = true
	return []stateMetric{
		{
			name: "tandem_audits_total", labels: []string{"outcome"}, counter: true,
			help: "Queries that were taken to be audited, by what became of them: done, or left out because the queue was full, they had waited for too long, their arm answered no more, they were too large, nodes had no room for them, or the exact scan failed. Of a node: what routers have asked it to scan.",
			values: func(s *State, set setter) {
				c := s.Audits
				if c == nil {
					return
				}
				for outcome, n := range map[string]uint64{"done": c.Audits, "full": c.Full, "aged": c.Aged, "gone": c.Gone, "large": c.Large, "busy": c.Busy, "failed": c.Failed} {
					set(float64(n), outcome)
				}
			},
		},
		used,
		gauge("tandem_audit_longest_slice_seconds", "Longest time that an audit took a processor of this process at a stretch, in seconds.", audited,
			func(s *State) float64 { return s.Audits.Longest.Seconds() }),
	}
}
