package mongowire

import (
	"time"

	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"
)

// Call is one command as it arrives.
type Call struct {
	// N counts the calls of the server's life from 1, OfCommand those of the same command. The driver's own housekeeping, such as
	// hello and endSessions, does not count.
	N, OfCommand int
	// Command is its name, such as find, getMore or update.
	Command              string
	Database, Collection string
	Body                 bsoncore.Document
}

// Action is what becomes of a call. Its zero value is an answer like any other's.
type Action struct {
	// Delay is waited before the call is executed.
	Delay time.Duration
	// DropBefore ends the connection instead of executing the call; DropAfter executes it and ends the connection instead of answering.
	DropBefore, DropAfter bool
	// Fail is answered instead of executing the call.
	Fail *Failure
	// WriteConcernError goes into the answer of a call that was executed.
	WriteConcernError *Failure
	// Rewrite gives what is answered instead of the answer.
	Rewrite func(answer bsoncore.Document) bsoncore.Document
	// After runs when the call was executed, before its answer is sent.
	After func()
	// Trickle is how long the sending of the answer takes.
	Trickle time.Duration
	// Truncate sends that many bytes of the answer, then ends the connection.
	Truncate int
	// Oversize announces an answer longer than a message may be, then ends the connection.
	Oversize bool
	// Raw is sent instead of the answer; then the connection ends.
	Raw []byte
}

func (a Action) broken() bool { return a.Raw != nil || a.Oversize || a.Truncate > 0 }

// Failure is an error as MongoDB answers it.
type Failure struct {
	Code    int32
	Name    string
	Message string
	Labels  []string
}

// What a server says that steps down, shuts down, or cannot keep up; a driver may try again.
var (
	NotWritablePrimary = &Failure{10107, "NotWritablePrimary", "not primary", []string{"RetryableWriteError"}}
	ShutdownInProgress = &Failure{91, "ShutdownInProgress", "The server is in quiesce mode and will shut down", []string{"RetryableWriteError"}}
	PrimarySteppedDown = &Failure{189, "PrimarySteppedDown", "primary stepped down while waiting for replication", []string{"RetryableWriteError"}}
	InterruptedAtShut  = &Failure{11600, "InterruptedAtShutdown", "interrupted at shutdown", []string{"RetryableWriteError"}}
	WriteConcernFailed = &Failure{64, "WriteConcernFailed", "waiting for replication timed out", nil}
	CursorNotFound     = &Failure{43, "CursorNotFound", "cursor not found", nil}
	Unauthorized       = &Failure{13, "Unauthorized", "not authorized to execute the command", nil}
)

func (f *Failure) answer() bsoncore.Document {
	b := bsoncore.NewDocumentBuilder().
		AppendDouble("ok", 0).
		AppendString("errmsg", f.Message).
		AppendInt32("code", f.Code).
		AppendString("codeName", f.Name)
	if len(f.Labels) > 0 {
		labels := bsoncore.NewArrayBuilder()
		for _, l := range f.Labels {
			labels.AppendString(l)
		}
		b.AppendArray("errorLabels", labels.Build())
	}
	return b.Build()
}

// attach adds the failure to an answer as a write concern error.
func (f *Failure) attach(answer bsoncore.Document) bsoncore.Document {
	b := bsoncore.NewDocumentBuilder()
	for e := range elements(answer) {
		b.AppendValue(e.Key(), e.Value())
	}
	return b.AppendDocument("writeConcernError", bsoncore.NewDocumentBuilder().
		AppendInt32("code", f.Code).AppendString("codeName", f.Name).AppendString("errmsg", f.Message).Build()).Build()
}

// Intercept lets f see every call before it is executed, from the goroutine of its connection, and say what becomes of it. f may use the
// server: whatever it puts is there before the call is executed. Nil ends it.
func (s *Server) Intercept(f func(*Call) Action) {
	s.state.Lock()
	defer s.state.Unlock()
	s.intercept = f
}
