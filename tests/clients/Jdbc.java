import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.HexFormat;
import java.util.Properties;

/**
 * Runs statements through Arrow's JDBC driver for Flight SQL, as a user's program would.
 *
 * Usage: java -cp DRIVER Jdbc.java URL USER WAY SQL [WAY SQL]...
 *
 * WAY is query (executeQuery), update (executeUpdate), execute, prepared, prepared-update or tables. Each statement prints one line
 * of JSON: columns, rows as text, count, error. USER `-` does not log in.
 */
public class Jdbc {
    public static void main(String[] args) throws SQLException {
        Properties login = new Properties();
        if (!args[1].equals("-")) {
            login.put("user", args[1]);
            login.put("password", "any");
        }
        try (Connection connection = DriverManager.getConnection(args[0], login)) {
            for (int at = 2; at + 1 < args.length; at += 2) {
                StringBuilder line = new StringBuilder("{");
                try {
                    run(connection, args[at], args[at + 1], line);
                } catch (SQLException error) {
                    line.append("\"error\":").append(quoted(error.getMessage()));
                }
                System.out.println(line.append("}"));
                System.out.flush();
            }
        }
    }

    static void run(Connection connection, String way, String sql, StringBuilder line) throws SQLException {
        switch (way) {
            case "tables" -> {
                try (ResultSet tables = connection.getMetaData().getTables(null, null, sql, null)) {
                    rows(tables, line);
                }
            }
            case "prepared", "prepared-update" -> {
                try (PreparedStatement statement = connection.prepareStatement(sql)) {
                    if (way.equals("prepared")) {
                        rows(statement.executeQuery(), line);
                    } else {
                        line.append("\"count\":").append(statement.executeLargeUpdate());
                    }
                }
            }
            default -> {
                try (Statement statement = connection.createStatement()) {
                    switch (way) {
                        case "query" -> rows(statement.executeQuery(sql), line);
                        case "update" -> line.append("\"count\":").append(statement.executeUpdate(sql));
                        case "execute" -> {
                            if (statement.execute(sql)) {
                                rows(statement.getResultSet(), line);
                            } else {
                                line.append("\"count\":").append(statement.getUpdateCount());
                            }
                        }
                        default -> throw new IllegalArgumentException(way);
                    }
                }
            }
        }
    }

    static void rows(ResultSet result, StringBuilder line) throws SQLException {
        int width = result.getMetaData().getColumnCount();
        line.append("\"columns\":[");
        for (int column = 1; column <= width; column++) {
            line.append(column == 1 ? "" : ",").append(quoted(result.getMetaData().getColumnName(column)));
        }
        line.append("],\"rows\":[");
        for (boolean first = true; result.next(); first = false) {
            line.append(first ? "[" : ",[");
            for (int column = 1; column <= width; column++) {
                Object value = result.getObject(column);
                String text = value instanceof byte[] bytes ? HexFormat.of().formatHex(bytes) : value == null ? null : value.toString();
                line.append(column == 1 ? "" : ",").append(text == null ? "null" : quoted(text));
            }
            line.append("]");
        }
        line.append("]");
    }

    static String quoted(String text) {
        StringBuilder out = new StringBuilder("\"");
        for (char letter : String.valueOf(text).toCharArray()) {
            switch (letter) {
                case '"' -> out.append("\\\"");
                case '\\' -> out.append("\\\\");
                default -> {
                    if (letter < ' ') {
                        out.append(String.format("\\u%04x", (int) letter));
                    } else {
                        out.append(letter);
                    }
                }
            }
        }
        return out.append('"').toString();
    }
}
