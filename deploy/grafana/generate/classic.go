package main

import "github.com/grafana/grafana-foundation-sdk/go/dashboard"

// The classic format of a dashboard, which every Grafana since 10 imports and provisions. The SDK prefers its second version,
// which older Grafanas cannot read.
type (
	//lint:ignore SA1019 see above
	classic = dashboard.Dashboard
	//lint:ignore SA1019 see above
	builder = dashboard.DashboardBuilder
)

func newDashboard(title string) *builder {
	//lint:ignore SA1019 see above
	return dashboard.NewDashboardBuilder(title)
}
