package mongowire

import (
	"time"

	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"
)

// Call is a command that has arrived.
type Call struct {
	// N is the number of the call since the server started, from 1. OfCommand is its number among calls of the same command. Commands
	// that the driver sends by itself, such as hello and endSessions, are not counted.
	N, OfCommand int
	// Command is the name of the command, such as find, getMore or update.
	Command              string
	Database, Collection string
	Body                 bsoncore.Document
}

// Action says how a call is treated. The zero value means a normal answer.
type Action struct {
	// Delay is a pause before the call is executed.
	Delay time.Duration
	// DropBefore closes the connection instead of executing the call. DropAfter executes the call and closes the connection instead of
	// answering.
	DropBefore, DropAfter bool
	// Fail is the answer instead of executing the call.
	Fail *Failure
	// WriteConcernError is added to the answer of the executed call.
	WriteConcernError *Failure
	// Rewrite returns a replacement of the answer.
	Rewrite func(answer bsoncore.Document) bsoncore.Document
	// After is called after the call is executed, before its answer is sent.
	After func()
	// Trickle is the time that sending the answer takes.
	Trickle time.Duration
	// Truncate sends only that many bytes of the answer, then closes the connection.
	Truncate int
	// Oversize announces an answer that is longer than the maximum message, then closes the connection.
	Oversize bool
	// Raw is sent instead of the answer. Then the connection is closed.
	Raw []byte
}

func (a Action) broken() bool { return a.Raw != nil || a.Oversize || a.Truncate > 0 }

// Failure is an error in MongoDB's format.
type Failure struct {
	Code    int32
	Name    string
	Message string
	Labels  []string
}

// Errors of a server that steps down, shuts down, or is overloaded. A driver may retry after them.
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

// Intercept calls f before each call is executed, in the goroutine of the call's connection. f decides how the call is treated. f may
// use the server: documents that it puts are stored before the call is executed. Intercept(nil) removes f.
func (s *Server) Intercept(f func(*Call) Action) {
	s.state.Lock()
	defer s.state.Unlock()
	s.intercept = f
}
