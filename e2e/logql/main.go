// Command logql evaluates LogQL expressions with Loki's own engine, on log lines that it reads from stdin instead of a Loki
// server. It is a module of its own, because Loki's dependencies are large.
//
// Stdin is one JSON object: the streams, and the queries with their range of time. Stdout has one JSON object for each query, in
// the same order: the series or streams of the answer, or the error of the parser or the engine.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/grafana/dskit/user"
	"github.com/grafana/loki/v3/pkg/logproto"
	"github.com/grafana/loki/v3/pkg/logql"
	"github.com/grafana/loki/v3/pkg/logql/syntax"
	"github.com/grafana/loki/v3/pkg/logqlmodel"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
)

type input struct {
	Streams []struct {
		Labels map[string]string
		Lines  []struct {
			Time time.Time
			Line string
		} // in order of time
	}
	Queries []struct {
		Expr       string
		Start, End time.Time
		Seconds    int // between two points of a range query; 0 asks for the one answer at End
	}
}

type answer struct {
	Series []series `json:"series,omitempty"`
	Error  string   `json:"error,omitempty"`
}

// series is one series of a metric query, or one stream of a log query.
type series struct {
	Labels map[string]string `json:"labels"`
	Times  []time.Time       `json:"times"`
	Values []float64         `json:"values,omitempty"`
	Lines  []string          `json:"lines,omitempty"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "logql:", err)
		os.Exit(1)
	}
}

func run() error {
	var in input
	decoder := json.NewDecoder(os.Stdin)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&in); err != nil {
		return fmt.Errorf("read stdin: %w", err)
	}
	var streams []logproto.Stream
	for _, s := range in.Streams {
		stream := logproto.Stream{Labels: labels.FromMap(s.Labels).String()}
		for _, l := range s.Lines {
			stream.Entries = append(stream.Entries, logproto.Entry{Timestamp: l.Time, Line: l.Line})
		}
		streams = append(streams, stream)
	}
	engine := logql.NewEngine(logql.EngineOpts{}, logql.NewMockQuerier(0, streams), logql.NoLimits, nil)
	out := json.NewEncoder(os.Stdout)
	for _, q := range in.Queries {
		var a answer
		var err error
		if a.Series, err = ask(engine, q.Expr, q.Start, q.End, time.Duration(q.Seconds)*time.Second); err != nil {
			a.Error = err.Error()
		}
		if err := out.Encode(a); err != nil {
			return err
		}
	}
	return nil
}

func ask(engine *logql.QueryEngine, expr string, start, end time.Time, step time.Duration) ([]series, error) {
	if step == 0 {
		start = end
	}
	params, err := logql.NewLiteralParams(expr, start, end, step, 0, logproto.BACKWARD, 5000, nil, nil)
	if err != nil {
		return nil, err
	}
	result, err := engine.Query(params).Exec(user.InjectOrgID(context.Background(), "hub"))
	if err != nil {
		return nil, err
	}
	var all []series
	switch data := result.Data.(type) {
	case promql.Vector:
		for _, s := range data {
			all = append(all, series{Labels: s.Metric.Map(), Times: []time.Time{time.UnixMilli(s.T)}, Values: []float64{s.F}})
		}
	case promql.Matrix:
		for _, s := range data {
			one := series{Labels: s.Metric.Map()}
			for _, p := range s.Floats {
				one.Times, one.Values = append(one.Times, time.UnixMilli(p.T)), append(one.Values, p.F)
			}
			all = append(all, one)
		}
	case logqlmodel.Streams:
		for _, s := range data {
			parsed, err := syntax.ParseLabels(s.Labels)
			if err != nil {
				return nil, err
			}
			one := series{Labels: parsed.Map()}
			for _, e := range s.Entries {
				one.Times, one.Lines = append(one.Times, e.Timestamp), append(one.Lines, e.Line)
			}
			all = append(all, one)
		}
	default:
		return nil, errors.New("an answer of type " + string(result.Data.Type()))
	}
	return all, nil
}
