package cni

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// What errors.Is tells apart. ErrCNINotInitialized stands for everything that a later try can mend without anyone
// changing a request: no daemon, one that is not ready, one that does not answer.
var (
	ErrCNINotInitialized = errors.New("cni plugin not initialized")
	ErrInvalidConfig     = errors.New("invalid cni config")
	ErrNotFound          = errors.New("not found")
	ErrRead              = errors.New("failed to read config file")
	ErrInvalidResult     = errors.New("invalid result")
	ErrLoad              = errors.New("failed to load cni config")
)

// IsCNINotInitialized says whether no workload can be attached at present.
func IsCNINotInitialized(err error) bool { return errors.Is(err, ErrCNINotInitialized) }

// IsInvalidConfig says whether what was asked for cannot be had, and never will be.
func IsInvalidConfig(err error) bool { return errors.Is(err, ErrInvalidConfig) }

// IsNotFound says whether a namespace, an attachment or an interface is not there.
func IsNotFound(err error) bool { return errors.Is(err, ErrNotFound) }

// IsReadFailure says whether a configuration file could not be read.
func IsReadFailure(err error) bool { return errors.Is(err, ErrRead) }

// IsInvalidResult says whether an answer makes no sense.
func IsInvalidResult(err error) bool { return errors.Is(err, ErrInvalidResult) }

// Error is why the daemon did not do something: its refusal, or that it could not be asked.
//
// It is no gRPC error itself, so that a runtime which is asked over gRPC does not pass on the daemon's code as its own.
type Error struct {
	// Socket of the daemon.
	Socket string
	// Code of the refusal; Unavailable where nobody answers, DeadlineExceeded where nobody answered in time.
	Code codes.Code
	// Reason for programs, as ADDRESS_HELD; empty where nobody answered.
	Reason string
	// Message for people.
	Message string
	// Field of the request that is wrong, where one is.
	Field string
	// RetryAfter is when to try again, where that helps.
	RetryAfter time.Duration
	// Metadata is all that the daemon said for programs.
	Metadata map[string]string

	source error
}

func (e *Error) Error() string {
	if class := e.class(); class == ErrCNINotInitialized {
		return class.Error() + ": " + e.Message
	}
	return e.Message
}

// Unwrap makes errors.Is find what kind of error it is, and what it comes from.
func (e *Error) Unwrap() []error {
	var errs []error
	for _, err := range []error{e.class(), e.source} {
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

func (e *Error) class() error {
	switch e.Code {
	case codes.Unavailable, codes.DeadlineExceeded:
		return ErrCNINotInitialized
	case codes.NotFound:
		return ErrNotFound
	case codes.InvalidArgument, codes.Unimplemented:
		return ErrInvalidConfig
	}
	return nil
}

// wasHeard says whether the daemon itself refused. An error of the connection has no reason.
func (e *Error) wasHeard() bool { return e.Reason != "" }

// isTimer says whether the call's time is over: the server's own timer, which runs on what it was told to be left, says so
// in either way, without a reason.
func (e *Error) isTimer(ctx context.Context) bool {
	switch {
	case e.wasHeard():
		return false
	case e.Code == codes.DeadlineExceeded:
		return true
	}
	end, ends := ctx.Deadline()
	return e.Code == codes.Canceled && ends && time.Until(end) < earliness
}

// wasLost says whether the call ended early, with its connection or alone: whoever listened has not answered it.
func (e *Error) wasLost() bool {
	return !e.wasHeard() && e.source == nil && (e.Code == codes.Unavailable || e.Code == codes.Canceled)
}

// hasNoOutcomeYet says whether the daemon was asked to wait for longer than it does.
func (e *Error) hasNoOutcomeYet() bool { return e.Reason == "ORDER_GOES_ON" || e.Reason == "NOT_BEGUN" }

// mayPass says whether the same call can succeed later: the daemon was not there, or not able.
func (e *Error) mayPass() bool {
	return e.Code == codes.Unavailable || e.Code == codes.DeadlineExceeded
}

// refusal is what a call's error says.
func refusal(socket string, err error) *Error {
	said := status.Convert(err)
	refused := &Error{Socket: socket, Code: said.Code(), Message: "workloadnetd: " + said.Message()}
	for _, detail := range said.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			refused.Reason, refused.Metadata = detail.GetReason(), detail.GetMetadata()
			refused.Field = refused.Metadata["field"]
		case *errdetails.RetryInfo:
			refused.RetryAfter = detail.GetRetryDelay().AsDuration()
		}
	}
	if refused.wasHeard() {
		return refused
	}
	// What no reason comes with is no word of the daemon, but of what carries them (proto/, "Errors without an ErrorInfo").
	switch refused.Code {
	case codes.Internal, codes.Unknown:
		refused.Code = codes.Unavailable
	}
	if refused.Code == codes.Unavailable {
		refused.Message = fmt.Sprintf("the connection to workloadnetd on %s was lost: %s", socket, said.Message())
	}
	return refused
}

// unreachable says that nobody answers on the socket.
func unreachable(socket string, source error) *Error {
	return &Error{
		Socket:  socket,
		Code:    codes.Unavailable,
		Message: fmt.Sprintf("workloadnetd cannot be reached on %s: %v", socket, innermost(source)),
		source:  source,
	}
}

// late says that the time was over before an answer came. The last try's error says why, where it failed.
func late(ctx context.Context, socket string, took time.Duration, last *Error) *Error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return &Error{
			Socket: socket, Code: codes.Canceled, source: context.Canceled,
			Message: "workloadnetd was asked, and the caller stopped waiting",
		}
	}
	e := &Error{Socket: socket, Code: codes.DeadlineExceeded, source: context.DeadlineExceeded}
	e.Message = fmt.Sprintf("workloadnetd on %s did not answer within %v", socket, took.Round(100*time.Millisecond))
	if last != nil {
		e.Message, e.Reason, e.Metadata = last.Message, last.Reason, last.Metadata
	}
	return e
}

// innermost leaves away what wraps a system call's error: the path and what was done are said already.
func innermost(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}
