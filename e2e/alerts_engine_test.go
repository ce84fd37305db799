//go:build torture

package e2e

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"
)

// Loki's own engine evaluates each alert of Loki's ruler while all is well, and after something failed on one host. Then the alert
// fires for that host only. The same expression without its event does not pass.
func TestAlertsTortureLogQL(t *testing.T) {
	j, rules := alertLogs(t), readLokiRules(t)
	var queries []logQuery
	ask := func(expr string, at time.Time) { queries = append(queries, logQuery{Expr: expr, End: at}) }
	for _, p := range provocations {
		expr := rules[p.alert].Expr
		wrong := eventFilter.ReplaceAllString(expr, `"msg":"(another_event)"`)
		ask(expr, p.silent)
		ask(expr, p.fires)
		ask(wrong, p.silent)
		ask(wrong, p.fires)
	}
	answers := evaluate(t, j, queries)
	var table strings.Builder
	fmt.Fprintf(&table, "%-24s %-42s %-6s %s\n", "rule", "how provoked", "before", "fired")
	for i, p := range provocations {
		silent, fires := answers[4*i], answers[4*i+1]
		summary := fires.Error
		for _, s := range fires.Series {
			summary += message(t, rules[p.alert].Annotations["summary"], s.Labels, s.Values[0]) + "; "
			message(t, rules[p.alert].Annotations["description"], s.Labels, s.Values[0])
		}
		fmt.Fprintf(&table, "%-24s %-42s %-6d %s\n", p.alert, p.how, len(silent.Series), strings.TrimSuffix(summary, "; "))
		if !p.passes(silent, fires) {
			t.Errorf("%s: before: %+v; then: %+v; want nothing, then %v", p.alert, silent, fires, p.labels)
		}
		if p.passes(answers[4*i+2], answers[4*i+3]) {
			t.Errorf("%s: this test does not see that the event of the rule is wrong", p.alert)
		}
	}
	t.Log("\n" + table.String())
}

func (p provocation) passes(silent, fires logAnswer) bool {
	return silent.Error == "" && fires.Error == "" && len(silent.Series) == 0 && len(fires.Series) == 1 && maps.Equal(fires.Series[0].Labels, p.labels)
}
