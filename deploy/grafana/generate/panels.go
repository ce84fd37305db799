package main

import (
	"fmt"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/variants"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/logs"
	"github.com/grafana/grafana-foundation-sdk/go/loki"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/table"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

const tag = "observability-hub"

// board returns a dashboard with a menu of the others. last is its range of time: the time until now.
func board(uid, title, last, refresh string, variables ...cog.Builder[dashboard.VariableModel]) *builder {
	d := newDashboard(title).Uid(uid).Version(1).Tags([]string{tag}).
		Refresh(refresh).Time("now-"+last, "now").
		Link(dashboard.NewDashboardLinkBuilder("Observability Hub").Type(dashboard.DashboardLinkTypeDashboards).
			Tags([]string{tag}).AsDropdown(true).KeepTime(true))
	for _, v := range variables {
		d.WithVariable(v)
	}
	return d
}

// --- data sources and variables

func source(kind, variable string) common.DataSourceRef {
	uid := "${" + variable + "}"
	return common.DataSourceRef{Type: &kind, Uid: &uid}
}

var (
	database = source(postgresType, "datasource")
	logStore = source("loki", "loki")
)

func databaseVariable() cog.Builder[dashboard.VariableModel] {
	return dashboard.NewDatasourceVariableBuilder("datasource").Label("Database").Type(postgresType)
}

func lokiVariable() cog.Builder[dashboard.VariableModel] {
	return dashboard.NewDatasourceVariableBuilder("loki").Label("Logs").Type("loki")
}

// lokiHosts chooses among the hosts that sent logs.
func lokiHosts() cog.Builder[dashboard.VariableModel] {
	query := `label_values({job="systemd-journal"}, host)`
	return dashboard.NewQueryVariableBuilder("host").Label("Host").Datasource(logStore).
		Query(dashboard.StringOrMap{String: &query}).Refresh(dashboard.VariableRefreshOnTimeRangeChanged).
		Sort(dashboard.VariableSortAlphabeticalAsc).Multi(true).IncludeAll(true).AllValue(".+").
		Current(dashboard.VariableOption{
			Text:  dashboard.StringOrArrayOfString{ArrayOfString: []string{"All"}},
			Value: dashboard.StringOrArrayOfString{ArrayOfString: []string{"$__all"}},
		})
}

// --- queries

// query is a query of a panel, which numbers it.
type query struct {
	source common.DataSourceRef
	target func(refID string) cog.Builder[variants.Dataquery]
}

func sql(format, text string) query {
	return query{database, func(refID string) cog.Builder[variants.Dataquery] {
		return postgresQuery{RefID: refID, Datasource: database, EditorMode: "code", Format: format, RawQuery: true, RawSQL: text}
	}}
}

// series is an SQL query for a chart: a column "time", then numbers, or a text "metric" that names the series and a "value".
func series(text string) query { return sql("time_series", text) }

// rows is an SQL query for a table.
func rows(text string) query { return sql("table", text) }

// logSeries is a LogQL query for a chart. The legend names the series by their labels.
func logSeries(legend, expr string) query {
	return query{logStore, func(refID string) cog.Builder[variants.Dataquery] {
		return loki.NewDataqueryBuilder().RefId(refID).Datasource(logStore).EditorMode(loki.QueryEditorModeCode).
			Expr(expr).QueryType("range").LegendFormat(legend)
	}}
}

// logValues is a LogQL query for a table: one value for each set of labels, at the end of the range of time.
func logValues(expr string) query {
	return query{logStore, func(refID string) cog.Builder[variants.Dataquery] {
		return loki.NewDataqueryBuilder().RefId(refID).Datasource(logStore).EditorMode(loki.QueryEditorModeCode).
			Expr(expr).QueryType("instant")
	}}
}

// logLines is a LogQL query for a panel of log lines.
func logLines(expr string) query {
	return query{logStore, func(refID string) cog.Builder[variants.Dataquery] {
		return loki.NewDataqueryBuilder().RefId(refID).Datasource(logStore).EditorMode(loki.QueryEditorModeCode).
			Expr(expr).QueryType("range").MaxLines(500)
	}}
}

// stream selects the log lines of unit families, and of those the ones with an event. Both are regular expressions. Records have
// no space around the colon, and a quotation mark within a string is escaped, so the text of the event occurs only as the event.
func stream(service, event string) string {
	return fmt.Sprintf("{job=\"systemd-journal\", host=~\"$host\", service=~\"%s\"} |~ `\"msg\":\"(%s)\"`", service, event)
}

// lastTime is the time of the last line of an expression in milliseconds, for each set of labels.
func lastTime(labels, expr string) string {
	return fmt.Sprintf("max by (%s) (max_over_time(%s | label_format at=`{{ __timestamp__ | unixEpochMillis }}` | unwrap at [$__range]))", labels, expr)
}

// largest is the largest number that a field has in the lines of an expression, for each set of labels.
func largest(labels, field, expr string) string {
	return fmt.Sprintf(`max by (%s) (max_over_time(%s | unwrap %s [$__interval]))`, labels, expr, field)
}

// total is the sum of a field.
func total(labels, field, expr string) string {
	return fmt.Sprintf(`sum by (%s) (sum_over_time(%s | unwrap %s [$__interval]))`, labels, expr, field)
}

// count is the number of lines within a range.
func count(labels, expr, within string) string {
	return fmt.Sprintf(`sum by (%s) (count_over_time(%s [%s]))`, labels, expr, within)
}

// --- panels

func refID(i int) string { return string(rune('A' + i)) }

// chart is a panel of half the width.
func chart(title, unit string, queries ...query) *timeseries.PanelBuilder {
	p := timeseries.NewPanelBuilder().Title(title).Unit(unit).Span(12).Height(8).Datasource(queries[0].source).
		LineWidth(1).FillOpacity(0).ShowPoints(common.VisibilityModeAuto).
		Tooltip(common.NewVizTooltipOptionsBuilder().Mode(common.TooltipDisplayModeMulti).Sort(common.SortOrderDescending)).
		Legend(common.NewVizLegendOptionsBuilder().DisplayMode(common.LegendDisplayModeList).Placement(common.LegendPlacementBottom).ShowLegend(true))
	for i, q := range queries {
		p.WithTarget(q.target(refID(i)))
	}
	return p
}

// bars is a chart of events that are rare. They are counted in bars and stacked.
func bars(title, unit string, queries ...query) *timeseries.PanelBuilder {
	return chart(title, unit, queries...).DrawStyle(common.GraphDrawStyleBars).FillOpacity(80).
		Stacking(common.NewStackingConfigBuilder().Mode(common.StackingModeNormal))
}

// marks is a chart of values that come a few times a day: each is a point.
func marks(title, unit string, queries ...query) *timeseries.PanelBuilder {
	return chart(title, unit, queries...).DrawStyle(common.GraphDrawStylePoints).PointSize(6)
}

func list(title string, queries ...query) *table.PanelBuilder {
	p := table.NewPanelBuilder().Title(title).Span(24).Height(9).Datasource(queries[0].source).
		Footer(common.NewTableFooterOptionsBuilder().Show(false).Reducer([]string{}))
	for i, q := range queries {
		p.WithTarget(q.target(refID(i)))
	}
	return p
}

// values is a list of a LogQL query's values. Grafana makes a column for each label, "Time", and "Value #A".
func values(title, value, unit string, q query) *table.PanelBuilder {
	return list(title, q).
		WithTransformation(dashboard.DataTransformerConfig{Id: "organize", Options: map[string]any{"excludeByName": map[string]any{"Time": true}}}).
		OverrideByRegexp("^Value.*", []dashboard.DynamicConfigValue{{Id: "displayName", Value: value}, {Id: "unit", Value: unit}})
}

func number(title, unit string, q query) *stat.PanelBuilder {
	return stat.NewPanelBuilder().Title(title).Unit(unit).Span(6).Height(4).Datasource(q.source).
		ReduceOptions(common.NewReduceDataOptionsBuilder().Calcs([]string{"lastNotNull"}).Fields("").Values(false)).
		WithTarget(q.target("A"))
}

func lines(title string, q query) *logs.PanelBuilder {
	return logs.NewPanelBuilder().Title(title).Span(24).Height(9).Datasource(q.source).
		ShowTime(true).WrapLogMessage(true).EnableLogDetails(true).SortOrder(common.LogsSortOrderDescending).
		DedupStrategy(common.LogsDedupStrategyNone).WithTarget(q.target("A"))
}

// unit sets the unit of a table's column.
func unit(name string) []dashboard.DynamicConfigValue {
	return []dashboard.DynamicConfigValue{{Id: "unit", Value: name}}
}

// limits sets the unit of a table's column, and colours its cells from two values on.
func limits(name string, yellow, red float64) []dashboard.DynamicConfigValue {
	steps := []dashboard.Threshold{{Color: "green"}, {Color: "yellow", Value: &yellow}, {Color: "red", Value: &red}}
	return append(unit(name),
		dashboard.DynamicConfigValue{Id: "custom.cellOptions", Value: map[string]any{"type": "color-text"}},
		dashboard.DynamicConfigValue{Id: "thresholds", Value: map[string]any{"mode": "absolute", "steps": steps}})
}

// linkToHost makes a column with host names lead to the host's dashboard.
func linkToHost() []dashboard.DynamicConfigValue {
	return []dashboard.DynamicConfigValue{{Id: "links", Value: []any{map[string]any{
		"title": "the host ${__value.text}",
		"url":   "/d/" + hostUID + "?${__url_time_range}&var-host=${__value.text}",
	}}}}
}
